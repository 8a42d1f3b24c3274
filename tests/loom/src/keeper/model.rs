//! Models of the outbox. The far end of the socket is closed, so the first write ends the writer: a writer that is not
//! woken for it never ends, and that is a deadlock.

use super::outbox::{self, Outbox};
use loom::thread;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

fn writer(outbox: &Arc<Outbox>) -> thread::JoinHandle<()> {
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let outbox = Arc::clone(outbox);
    thread::spawn(move || outbox::write(&outbox, near))
}

pub(crate) fn what_is_put_is_written() {
    let puts: [fn(&Outbox); 6] = [
        Outbox::put_kill,
        |outbox| outbox.put_ack(1, 2, false),
        |outbox| outbox.put_signal(2),
        |outbox| {
            // In either order: the bytes go when there is a window for them.
            assert!(outbox.put_stdin(0, b"x".to_vec()));
            outbox.set_taken(0);
        },
        |outbox| {
            outbox.set_taken(0);
            assert!(outbox.put_stdin(0, b"x".to_vec()));
        },
        |outbox| {
            outbox.set_taken(0);
            outbox.put_close_stdin();
        },
    ];
    for put in puts {
        loom::model(move || {
            let outbox = Arc::new(Outbox::default());
            let writer = writer(&outbox);
            put(&outbox);
            writer.join().unwrap();
        });
    }
}

pub(crate) fn letting_go_ends_the_writer() {
    loom::model(|| {
        let outbox = Arc::new(Outbox::default());
        let writer = writer(&outbox);
        outbox.let_go();
        assert!(outbox.is_let_go());
        writer.join().unwrap();
    });
}
