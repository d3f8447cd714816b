// An independent judge of the IAM policies in docs/aws.md: each is read from that page and evaluated by @cloud-copilot/iam-simulate,
// which resolves `${aws:username}` and checks actions, resources and condition keys against AWS's own lists.
// Usage: node policies.mjs PAGE FOLDER, where FOLDER is where npm has installed the simulator.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const [page, folder] = process.argv.slice(2)
const { runSimulation } = createRequire(`${folder}/`)('@cloud-copilot/iam-simulate')

const text = readFileSync(page, 'utf8')
const ACTIONS = ['iam:ListAccessKeys', 'iam:CreateAccessKey', 'iam:UpdateAccessKey', 'iam:DeleteAccessKey', 'iam:GetAccessKeyLastUsed']
// What nobody asked for; `iam:*` would allow it.
const OTHERS = ['iam:CreateUser', 'iam:AttachUserPolicy', 'iam:PutUserPolicy', 'iam:CreateLoginProfile', 'iam:GetUser']
const ACCOUNT = '111111111111'
let passed = 0
let failed = 0

function policy(name) {
  const found = text.split(`<!-- policy: ${name} -->\n\`\`\`json\n`)
  if (found.length !== 2) throw new Error(`${page} has ${found.length - 1} policies ${name}`)
  return JSON.parse(found[1].split('\n```')[0])
}

async function judge(what, expected, request, documents) {
  const response = await runSimulation(
    {
      request: { contextVariables: {}, ...request },
      identityPolicies: (documents.identity ?? []).map((policy, at) => ({ name: `policy ${at}`, policy })),
      resourcePolicy: documents.trust,
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  )
  const answer = response.resultType === 'error' ? `error: ${JSON.stringify(response.errors)}` : response.overallResult
  const good = answer === expected
  good ? passed++ : failed++
  console.log(`${good ? 'ok     ' : 'FAILED '} ${what}: ${answer}`)
}

const user = (path, name) => `arn:aws:iam::${ACCOUNT}:user${path}${name}`

async function ofUser(name, path, elsewhere) {
  const document = policy(name)
  const own = user(path, 'shop-deployer')
  const request = (action, resource) => ({
    action,
    principal: own,
    resource: { resource, accountId: ACCOUNT },
    contextVariables: { 'aws:username': 'shop-deployer' },
  })
  for (const action of ACTIONS) {
    await judge(`${name}: ${action} on itself`, 'Allowed', request(action, own), { identity: [document] })
    const others = { 'another user': user(path, 'other'), 'a user whose name begins alike': user(path, 'shop-deployer2'), 'a user of that name elsewhere': user(elsewhere, 'shop-deployer') }
    for (const [who, arn] of Object.entries(others)) {
      await judge(`${name}: ${action} on ${who}`, 'ImplicitlyDenied', request(action, arn), { identity: [document] })
    }
    const lacking = structuredClone(document)
    lacking.Statement[0].Action = lacking.Statement[0].Action.filter((known) => known !== action)
    await judge(`${name} without ${action}: on itself`, 'ImplicitlyDenied', request(action, own), { identity: [lacking] })
  }
  for (const action of OTHERS) {
    await judge(`${name}: ${action} on itself`, 'ImplicitlyDenied', request(action, own), { identity: [document] })
  }
}

async function ofRole() {
  const document = policy('role')
  const principal = `arn:aws:sts::${ACCOUNT}:assumed-role/credential-rotator/session`
  const request = (action, resource) => ({ action, principal, resource: { resource, accountId: ACCOUNT } })
  for (const action of ACTIONS) {
    await judge(`role: ${action} on the user`, 'Allowed', request(action, user('/', 'shop-deployer')), { identity: [document] })
    await judge(`role: ${action} on another user`, 'ImplicitlyDenied', request(action, user('/', 'other')), { identity: [document] })
    await judge(`role: ${action} on a user whose name begins alike`, 'ImplicitlyDenied', request(action, user('/', 'shop-deployer2')), { identity: [document] })
    await judge(`role: ${action} in another account`, 'ImplicitlyDenied', { action, principal, resource: { resource: 'arn:aws:iam::333333333333:user/shop-deployer', accountId: '333333333333' } }, { identity: [document] })
  }
  for (const action of OTHERS) {
    await judge(`role: ${action} on the user`, 'ImplicitlyDenied', request(action, user('/', 'shop-deployer')), { identity: [document] })
  }
}

// The simulator drops context keys that AWS's list does not have for the action: of GitLab.com it has `project_id`, but of an ID token's
// `aud` and `sub` it has only those of a few providers. The document is judged with Google's in the place of GitLab's; that the keys are the provider's is judged here.
const LISTED = 'accounts.google.com'

async function ofTrust() {
  const printed = policy('role-trust')
  const provider = printed.Statement[0].Principal.Federated
  const host = provider.split('oidc-provider/')[1]
  const claims = printed.Statement[0].Condition.StringEquals
  const keys = Object.keys(printed.Statement[0].Condition).concat(Object.keys(claims)).sort()
  const exact = JSON.stringify(keys) === JSON.stringify(['StringEquals', `${host}:aud`, `${host}:project_id`, `${host}:sub`].sort())
  exact ? passed++ : failed++
  console.log(`${exact ? 'ok     ' : 'FAILED '} role-trust: exact conditions on the provider's own aud, sub and project_id`)
  const { [`${host}:aud`]: aud, [`${host}:sub`]: sub, [`${host}:project_id`]: id } = claims
  const trust = structuredClone(printed)
  trust.Statement[0].Condition.StringEquals = { [`${LISTED}:aud`]: aud, [`${LISTED}:sub`]: sub, [`${host}:project_id`]: id }
  const project = sub.split(':')[1]
  const assumed = (what, expected, given, principal = provider) =>
    judge(
      `role-trust: ${what}`,
      expected,
      {
        action: 'sts:AssumeRoleWithWebIdentity',
        principal,
        resource: { resource: `arn:aws:iam::${ACCOUNT}:role/credential-rotator`, accountId: ACCOUNT },
        contextVariables: Object.fromEntries(
          Object.entries({ aud, sub, project_id: id, ...given }).map(([claim, value]) => [`${claim === 'project_id' ? host : LISTED}:${claim}`, value]),
        ),
      },
      { trust },
    )
  await assumed('this project and branch', 'Allowed', {})
  await assumed('another project', 'ImplicitlyDenied', { sub: sub.replace(project, 'acme/somebody-else') })
  await assumed('a project whose path begins alike', 'ImplicitlyDenied', { sub: sub.replace(project, `${project}-2`) })
  await assumed('another branch', 'ImplicitlyDenied', { sub: sub.replace(':ref:main', ':ref:feature') })
  await assumed('a branch whose name begins alike', 'ImplicitlyDenied', { sub: sub.replace(':ref:main', ':ref:main-2') })
  await assumed('a tag of that name', 'ImplicitlyDenied', { sub: sub.replace(':ref_type:branch:', ':ref_type:tag:') })
  await assumed('another project at that path', 'ImplicitlyDenied', { project_id: `${id}9` })
  await assumed('another audience', 'ImplicitlyDenied', { aud: 'https://gitlab.example.com' })
  await assumed('another identity provider', 'ImplicitlyDenied', {}, `arn:aws:iam::${ACCOUNT}:oidc-provider/gitlab.example.com`)
}

async function ofChain() {
  const [entry, next] = [policy('chain-trust').Statement[0].Principal.AWS, policy('chain').Statement[0].Resource]
  const session = (role) => `${role.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/session`
  const request = (principal, resource) => ({ action: 'sts:AssumeRole', principal: session(principal), resource: { resource, accountId: resource.split(':')[4] } })
  const both = { identity: [policy('chain')], trust: policy('chain-trust') }
  await judge('chain: the first role assumes the second', 'Allowed', request(entry, next), both)
  await judge('chain: another role does not', 'ImplicitlyDenied', request(entry.replace(/role\/.*/, 'role/other'), next), both)
  await judge('chain: without the first role\'s policy', 'ImplicitlyDenied', request(entry, next), { trust: both.trust })
  await judge('chain: the first role assumes no third', 'ImplicitlyDenied', request(entry, next.replace(/role\/.*/, 'role/other')), both)
}

await ofUser('self', '/', '/service/ci/')
await ofUser('self-path', '/service/ci/', '/')
await ofRole()
await ofTrust()
await ofChain()
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
