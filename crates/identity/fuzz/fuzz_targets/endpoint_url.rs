#![no_main]

use identity::EndpointUrl;
use libfuzzer_sys::fuzz_target;

// What is taken is kept as it was written, and is taken again.
fuzz_target!(|text: &str| {
    if let Ok(url) = EndpointUrl::parse(text) {
        assert_eq!(url.as_str(), text);
        assert_eq!(EndpointUrl::parse(url.as_str()), Ok(url));
    }
});
