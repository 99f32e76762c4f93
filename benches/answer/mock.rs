//! The mock provider as a program: it speaks every dialect on one address until it is ended.
//! `mock --address 127.0.0.1:9100 [--words 20] [--pace-ms 20] [--first-byte-ms 0] [--dimensions 8] [--threads 1]`

use std::time::Duration;

#[path = "../../tests/suite/mock_provider/mod.rs"]
mod mock_provider;

use mock_provider::{Behaviour, Mock};

/// Serves for ever.
pub(crate) fn serve(mut arguments: impl Iterator<Item = String>) {
    let mut address = "127.0.0.1:9100".to_owned();
    let (mut behaviour, mut threads) = (Behaviour { words: 20, ..Behaviour::default() }, 1);
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next() else { panic!("{name} needs a value") };
        let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("{name} {value}: a whole number is needed"));
        match name.as_str() {
            "--address" => address.clone_from(&value),
            "--words" => behaviour.words = usize::try_from(number()).unwrap(),
            "--pace-ms" => behaviour.pace = Duration::from_millis(number()),
            "--first-byte-ms" => behaviour.first_byte = Duration::from_millis(number()),
            "--dimensions" => behaviour.dimensions = usize::try_from(number()).unwrap(),
            "--threads" => threads = usize::try_from(number()).unwrap(),
            _ => panic!("{name} is not known"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(async {
        let mock = Mock::bind(address.parse().unwrap(), behaviour).await.unwrap();
        println!("listening on {}", mock.address());
        std::future::pending::<()>().await;
    });
}
