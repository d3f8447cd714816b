//! scene
use crate::world::*;
#[test]
fn measure() {
    let world = World::builder().seed(7).calm().start();
    world.add_user("/service/ci/", "deployer");
    let key = world.add_key("deployer", 75);
    world.add_project(42, "group/app");
    world.set_pair(42, &key);
    world.set_pipeline_config(42, vec![JobSpec::deploy("deploy", "production").stage("deploy")]);
    world.start_pipeline(42, "push");
    world.finish_pipelines();
    world.watch_target(42, "*", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    world.watch_deploy(42);
    world.add_job(42, 98765, "running");
    let begun = std::time::Instant::now();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_credential-rotator")).env_clear().envs(world.env(42, 98765))
       .env("ROTATOR_OVERLAP", "0s").env("ROTATOR_GRACE_PERIOD", "0s").env("ROTATOR_LOG", "debug").output().expect("runs");
    eprintln!("{}", String::from_utf8_lossy(&out.stderr));
    eprintln!("{:?}", begun.elapsed());
    let start = world.log()[0].at;
    for e in world.log() { eprintln!("{:?} {} +{} {} | {} | {} {}", e.n, e.service, e.at - start, e.action, e.what, e.status, e.effect); }
    let cpu = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let f: Vec<&str> = cpu.rsplit(')').next().expect("x").split(' ').collect();
    eprintln!("cutime {} cstime {}; self {} {}", f[14], f[15], f[12], f[13]);
}
