//! Config files: no text panics the reader.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let environment = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    for environment in [None, Some(&environment)] {
        let read = runtime::config::read(text, environment, |root| {
            let mut agent = root.section("agent");
            let duration = agent.get::<Duration>("a");
            agent.get::<Vec<u16>>("b");
            for (_, mut plugin) in root.labelled("c") {
                plugin.section("d").get::<bool>("e");
            }
            duration
        });
        if let Err(problems) = read {
            assert!(!problems.0.is_empty());
            let _ = problems.to_string();
        }
    }
});
