#![no_main]
//! Any stream: no byte is lost in cutting it, and without anything to inject it comes out as it went in.

use k8s::inject::Rules;
use k8s::offline::{Action, Verdict, run, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let whole: String = split(text).iter().map(|document| document.text).collect();
    assert_eq!(whole, text);
    let Ok((out, reports)) = run(text, Action::Inject, "default", &Rules::default(), &[]) else {
        return;
    };
    if !reports
        .iter()
        .any(|report| matches!(report.verdict, Verdict::Injected(_)))
    {
        assert_eq!(out, text);
    }
    // What was written can be read, and needs nothing more.
    let (again, _) =
        run(&out, Action::Inject, "default", &Rules::default(), &[]).expect("own output");
    assert_eq!(again, out);
});
