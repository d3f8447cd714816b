//! Connections that can be cut: at once, or in the middle of a body.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};

use super::outside::{Acceptor, admit};

/// A connection as the handlers know it: its number, and scissors.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    scissors: Arc<Scissors>,
}

#[derive(Debug)]
struct Scissors {
    cut: AtomicBool,
    /// Bytes of the next body that still pass; negative for all.
    body_left: AtomicI64,
}

impl Line {
    /// Nothing more is written, and the connection ends.
    pub(crate) fn cut(&self) {
        self.scissors.cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn cut_body_after(&self, bytes: usize) {
        self.scissors.body_left.store(i64::try_from(bytes).unwrap_or(0), Ordering::SeqCst);
    }
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, Lines>> for Line {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        stream.remote_addr().clone()
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A port that nobody else gets, whether anybody listens at it or not.
pub struct Port {
    pub number: u16,
    /// Bound, never listening.
    _reserved: TcpSocket,
}

impl Port {
    pub fn reserve() -> Self {
        let socket = Self::bind(0);
        let number = socket.local_addr().expect("a bound socket has an address").port();
        Self { number, _reserved: socket }
    }

    fn bind(number: u16) -> TcpSocket {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("a port may be shared");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], number))).expect("a free port on loopback");
        socket
    }

    /// In the context of a runtime.
    pub(crate) fn listen(&self) -> TcpListener {
        Self::bind(self.number).listen(1024).expect("a socket that listens")
    }
}

/// Tells the listener to be away for a while.
#[derive(Clone)]
pub(crate) struct Away(mpsc::UnboundedSender<(Duration, oneshot::Sender<()>)>);

impl Away {
    /// Ends once nobody listens any more.
    pub(crate) async fn go(&self, time: Duration) {
        let (gone, is_gone) = oneshot::channel();
        let _ = self.0.send((time, gone));
        let _ = is_gone.await;
    }
}

/// The listener: numbers the connections.
pub(crate) struct Lines {
    arriving: mpsc::UnboundedReceiver<Box<dyn Stream>>,
    count: u64,
}

impl Lines {
    pub(crate) fn open(
        port: Port,
        mut listener: TcpListener,
        acceptor: Option<Acceptor>,
    ) -> (Self, Away) {
        let (sender, arriving) = mpsc::unbounded_channel();
        let (away, mut asked) = mpsc::unbounded_channel::<(Duration, oneshot::Sender<()>)>();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let _ = stream.set_nodelay(true);
                        admit(stream, acceptor.clone(), sender.clone());
                    }
                    Some((time, gone)) = asked.recv() => {
                        drop(listener);
                        let _ = gone.send(());
                        tokio::time::sleep(time).await;
                        listener = port.listen();
                    }
                }
            }
        });
        (Self { arriving, count: 0 }, Away(away))
    }
}

impl Listener for Lines {
    type Io = Cuttable;
    type Addr = Line;

    async fn accept(&mut self) -> (Cuttable, Line) {
        let Some(stream) = self.arriving.recv().await else { std::future::pending().await };
        self.count += 1;
        let scissors =
            Arc::new(Scissors { cut: AtomicBool::new(false), body_left: AtomicI64::new(-1) });
        let line = Line { number: self.count, scissors: Arc::clone(&scissors) };
        (Cuttable { stream, scissors, in_body: false }, line)
    }

    fn local_addr(&self) -> io::Result<Line> {
        let scissors =
            Arc::new(Scissors { cut: AtomicBool::new(false), body_left: AtomicI64::new(-1) });
        Ok(Line { number: 0, scissors })
    }
}

pub(crate) struct Cuttable {
    stream: Box<dyn Stream>,
    scissors: Arc<Scissors>,
    in_body: bool,
}

impl Cuttable {
    /// How many bytes of `bytes` may pass; none at all where it is cut.
    fn allowed(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.scissors.cut.load(Ordering::SeqCst) {
            return None;
        }
        let left = usize::try_from(self.scissors.body_left.load(Ordering::SeqCst)).ok();
        let Some(left) = left else { return Some(bytes.len()) };
        if self.in_body {
            return (left > 0).then(|| left.min(bytes.len()));
        }
        match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => Some((end + 4).min(bytes.len())),
            None => Some(bytes.len()),
        }
    }

    fn passed(&mut self, bytes: &[u8], count: usize) {
        if self.in_body {
            self.scissors.body_left.fetch_sub(i64::try_from(count).unwrap_or(0), Ordering::SeqCst);
        } else if self.scissors.body_left.load(Ordering::SeqCst) >= 0
            && bytes[..count].ends_with(b"\r\n\r\n")
        {
            self.in_body = true;
        }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(allowed) = self.allowed(bytes) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let written = Pin::new(&mut self.stream).poll_write(context, &bytes[..allowed]);
        if let Poll::Ready(Ok(count)) = written {
            self.passed(bytes, count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
