//! A pod under edit: every change is made and written down as a JSON Patch operation (RFC 6902).

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, Patch, PatchError, PatchOperation, RemoveOperation};
use serde_json::{Value, json};

use super::reason::Refusal;

/// A pod and what was done to it.
#[derive(Debug)]
pub(crate) struct Edit {
    pub(crate) pod: Value,
    patch: Vec<PatchOperation>,
}

impl From<PatchError> for Refusal {
    fn from(error: PatchError) -> Self {
        Self::MalformedPod(error.to_string())
    }
}

impl Edit {
    pub(crate) const fn new(pod: Value) -> Self {
        Self {
            pod,
            patch: Vec::new(),
        }
    }

    /// Puts `value` at the end of the list at `path`, which is made when there is none.
    pub(crate) fn append(&mut self, path: &[&str], value: Value) -> Result<(), Refusal> {
        self.put(path, "-", json!([]), value)
    }

    /// Puts `value` at the front of the list at `path`.
    pub(crate) fn prepend(&mut self, path: &[&str], value: Value) -> Result<(), Refusal> {
        self.put(path, "0", json!([]), value)
    }

    /// Sets a member of the object at `path`.
    pub(crate) fn set(&mut self, path: &[&str], key: &str, value: Value) -> Result<(), Refusal> {
        self.put(path, key, json!({}), value)
    }

    /// Takes out what is at `path`.
    pub(crate) fn remove(&mut self, path: &[&str]) -> Result<(), Refusal> {
        self.apply(PatchOperation::Remove(RemoveOperation {
            path: pointer(path),
        }))
    }

    fn put(&mut self, path: &[&str], key: &str, empty: Value, value: Value) -> Result<(), Refusal> {
        let parent = pointer(path);
        if self.pod.pointer(parent.as_str()).is_none_or(Value::is_null) {
            self.apply(PatchOperation::Add(AddOperation {
                path: parent.clone(),
                value: empty,
            }))?;
        }
        let mut path = parent;
        path.push_back(Token::new(key));
        self.apply(PatchOperation::Add(AddOperation { path, value }))
    }

    fn apply(&mut self, operation: PatchOperation) -> Result<(), Refusal> {
        json_patch::patch(&mut self.pod, std::slice::from_ref(&operation))?;
        self.patch.push(operation);
        Ok(())
    }

    /// The pod, and the patch that makes it of the original.
    pub(crate) fn finish(self) -> (Value, Patch) {
        (self.pod, Patch(self.patch))
    }
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_made_and_names_escaped() {
        let original = json!({"metadata": {"annotations": null}, "spec": {}});
        let mut edit = Edit::new(original.clone());
        edit.set(&["metadata", "annotations"], "a/b~c", json!("x"))
            .expect("set");
        edit.append(&["spec", "volumes"], json!(1)).expect("append");
        edit.prepend(&["spec", "volumes"], json!(0))
            .expect("prepend");
        let (pod, patch) = edit.finish();
        let mut patched = original;
        json_patch::patch(&mut patched, &patch).expect("patch");
        assert_eq!(patched, pod);
        assert_eq!(
            pod,
            json!({"metadata": {"annotations": {"a/b~c": "x"}}, "spec": {"volumes": [0, 1]}})
        );
        let text = serde_json::to_string(&patch).expect("json");
        assert!(text.contains("/metadata/annotations/a~1b~0c"), "{text}");
    }

    #[test]
    fn a_pod_of_another_shape_is_refused() {
        let mut edit = Edit::new(json!({"spec": {"volumes": "none"}}));
        let refusal = edit
            .append(&["spec", "volumes"], json!(1))
            .expect_err("no list");
        assert_eq!(refusal.code(), "malformed_pod");
        assert!(
            edit.set(&["metadata", "annotations"], "x", json!(1))
                .is_err(),
            "no metadata"
        );
    }
}
