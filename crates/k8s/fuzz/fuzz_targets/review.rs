#![no_main]
//! Any body as an AdmissionReview, and what is in it as a pod: always an answer that can be read, under the request's UID,
//! whose patch fits the object.

use json_patch::Patch;
use k8s::admission::review::{Answer, decode};
use k8s::inject::{Namespace, Outcome, Rules, inject};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let request = match decode(body) {
        Ok(request) => request,
        Err(error) => {
            let answer: Value = read(&Answer::invalid(error.message).encode(&error.uid));
            assert_eq!(answer["response"]["allowed"], false);
            return;
        }
    };
    assert!(!request.uid.is_empty());
    let Some(pod) = request.object else { return };
    let namespace = Namespace::named(&request.namespace);
    let mut answer = Answer::allow();
    match inject(&pod, &namespace, &Rules::default()) {
        Outcome::Patched(patched) => {
            let patch: Patch =
                serde_json::from_slice(&serde_json::to_vec(&patched.patch).unwrap()).unwrap();
            let mut by_patch = pod;
            json_patch::patch(&mut by_patch, &patch).expect("the patch fits");
            assert_eq!(by_patch, patched.pod);
            let again = inject(&patched.pod, &namespace, &Rules::default());
            assert!(!matches!(again, Outcome::Patched(_)), "twice is once");
            answer.patch = patched.patch;
            answer.warnings = patched.warnings;
        }
        Outcome::Refused(refusal) => answer.warnings.push(refusal.to_string()),
        Outcome::Unchanged(_) => {}
    }
    let written = read(&answer.encode(&request.uid));
    assert_eq!(written["response"]["uid"], request.uid);
    assert_eq!(written["response"]["allowed"], true);
});

fn read(answer: &[u8]) -> Value {
    serde_json::from_slice(answer).expect("JSON")
}
