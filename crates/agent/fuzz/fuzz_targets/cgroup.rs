#![no_main]
//! Any `/proc/<pid>/cgroup`: no panic; what is found is well formed; and whatever lies below a container is that
//! container or nobody.

use agent::workload::cgroup::locate;
use libfuzzer_sys::fuzz_target;

const UID: &str = "0d5e35e2-1e16-4f5b-a7e5-8cc3ca0d5f1a";

fuzz_target!(|text: &str| {
    if let Ok(Some(container)) = locate(text) {
        assert!(matches!(container.pod_uid.len(), 32 | 36));
        assert!(container.id.is_none_or(|id| id.len() == 64));
    }
    let id = "c".repeat(64);
    let below = text.replace('\n', "");
    if let Ok(found) = locate(&format!("0::/kubepods/burstable/pod{UID}/{id}/{below}")) {
        let found = found.unwrap();
        assert_eq!(
            (found.pod_uid.as_str(), found.id.as_deref()),
            (UID, Some(id.as_str()))
        );
    }
});
