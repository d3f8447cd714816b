//! Connections as they come in, plain or TLS.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::line::Stream;

pub(crate) type Acceptor = TlsAcceptor;

/// HTTP/1.1 only, as the rest of the fake is.
pub(crate) fn acceptor(chain_pem: &str, key_pem: &str) -> Acceptor {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("certificates in PEM");
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).expect("a private key in PEM");
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions");
    let mut config = config
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A connection joins the others once its handshake is done; one that fails it never counts.
pub(crate) fn admit(
    stream: TcpStream,
    acceptor: Option<Acceptor>,
    arrived: UnboundedSender<Box<dyn Stream>>,
) {
    match acceptor {
        None => {
            let _ = arrived.send(Box::new(stream));
        }
        Some(acceptor) => {
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = arrived.send(Box::new(stream));
                }
            });
        }
    }
}
