use proptest::prelude::*;
use serde_json::json;

use super::*;

fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["a"]},
            "object": {"metadata": {"generateName": "web-"}, "spec": {"futureField": [1, null]}},
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions"}
        }
    })
}

fn decoded(review: &Value) -> Result<AdmissionRequest, ReviewError> {
    decode(&serde_json::to_vec(review).unwrap())
}

/// With `path` replaced, the review is refused with words that hold `expected`, under its UID.
fn refused(path: &str, by: Value, expected: &str) {
    let mut review = review();
    *review.pointer_mut(path).unwrap() = by;
    let error = decoded(&review).expect_err(path);
    assert!(error.message.contains(expected), "{path}: {error}");
    let uid = review.pointer("/request/uid").and_then(Value::as_str);
    assert_eq!(
        error.uid,
        uid.filter(|uid| uid.len() < 300).unwrap_or_default(),
        "{path}"
    );
}

#[test]
fn inj_16_a_review_is_read_and_unknown_fields_of_the_object_stay() {
    let request = decoded(&review()).unwrap();
    assert_eq!(request.uid, "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(
        (request.kind.kind.as_str(), request.name.as_str()),
        ("Pod", "")
    );
    assert_eq!(
        request.object.unwrap()["spec"]["futureField"],
        json!([1, null])
    );
    assert!(!request.dry_run);
}

#[test]
fn as_33_what_is_no_v1_review_is_refused_under_its_uid() {
    refused(
        "/apiVersion",
        json!("admission.k8s.io/v1beta1"),
        "admissionReviewVersions",
    );
    refused("/apiVersion", json!(null), "only AdmissionReview");
    refused("/apiVersion", json!(1), "no AdmissionReview");
    refused("/kind", json!("Pod"), "only AdmissionReview");
    refused("/request", json!(null), "no request");
    refused("/request", json!([]), "request.uid");
    refused("/request/uid", json!(""), "request.uid");
    refused("/request/uid", json!("x".repeat(300)), "request.uid");
    refused("/request/uid", json!(7), "no AdmissionReview");
    refused("/request/object", json!([1]), "request.object");
    refused("/request/object", json!("pod"), "request.object");
    refused("/request/dryRun", json!("yes"), "no AdmissionReview");
    refused("/request/kind", json!(3), "no AdmissionReview");
}

#[test]
fn managed_fields_are_left_out_and_nothing_else() {
    let whole = json!({
        "metadata": {
            "name": "web",
            "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}],
            "labels": {"managedFields": "stays"},
        },
        "managedFields": [1],
        "spec": {"metadata": {"managedFields": [2]}, "containers": [{"name": "app", "ports": [1, 2.5, true, null]}]},
    });
    let mut review = review();
    review["request"]["object"] = whole.clone();
    let mut expected = whole;
    expected["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(decoded(&review).unwrap().object, Some(expected));
    review["request"]["object"] = json!({"metadata": null, "spec": {}});
    let object = decoded(&review).unwrap().object;
    assert_eq!(object, Some(json!({"metadata": null, "spec": {}})));
}

#[test]
fn as_33_null_everywhere_is_read_or_refused() {
    let paths = [
        "kind",
        "resource",
        "namespace",
        "name",
        "operation",
        "userInfo",
        "object",
        "dryRun",
        "subResource",
        "options",
        "requestKind",
    ];
    for path in paths {
        let mut review = review();
        review["request"][path] = Value::Null;
        assert!(decoded(&review).is_ok(), "{path}");
    }
    for path in ["group", "version", "kind"] {
        let mut review = review();
        review["request"]["kind"][path] = Value::Null;
        assert!(decoded(&review).is_ok(), "{path}");
    }
}

#[test]
fn as_33_bombs_are_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","object":{{"a":{deep}}}}}}}"#
    );
    for body in [
        deep.as_str(),
        nested.as_str(),
        "",
        "null",
        "{}",
        "[",
        "\u{feff}{}",
        "{}{}",
    ] {
        assert!(decode(body.as_bytes()).is_err(), "{:.60}", body);
    }
    assert!(decode(&[0xff; 1000]).is_err());
}

#[test]
fn the_answer_carries_uid_patch_and_warnings() {
    let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"a~b": "c"}}]);
    let answer = Answer {
        warnings: vec!["one\r\nX-Evil: 1".to_owned(), "é".repeat(500)],
        patch: serde_json::from_value(patch.clone()).unwrap(),
        ..Answer::default()
    };
    let wire: Value = serde_json::from_slice(&answer.encode("the uid")).unwrap();
    assert_eq!(wire["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(wire["kind"], "AdmissionReview");
    let response = &wire["response"];
    assert_eq!(
        (&response["uid"], &response["allowed"]),
        (&json!("the uid"), &json!(true))
    );
    assert_eq!(response["patchType"], "JSONPatch");
    let sent = STANDARD
        .decode(response["patch"].as_str().unwrap())
        .unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), patch);
    assert_eq!(response["warnings"][0], "one  X-Evil: 1");
    let long = response["warnings"][1].as_str().unwrap();
    assert!(long.len() <= MAX_WARNING && long.ends_with('…'));
    assert_eq!(response.get("status"), None);
}

#[test]
fn a_refusal_has_a_status_and_never_a_patch() {
    let mut answer = Answer::invalid("spec.x: wrong");
    let patch = json!([{"op": "remove", "path": "/spec"}]);
    answer.patch = serde_json::from_value(patch).unwrap();
    let wire: Value = serde_json::from_slice(&answer.encode("u")).unwrap();
    let expected = json!({
        "uid": "u",
        "allowed": false,
        "status": {"status": "Failure", "code": 422, "reason": "Invalid", "message": "spec.x: wrong"}
    });
    assert_eq!(wire["response"], expected);
}

proptest! {
    #[test]
    fn no_body_panics_and_errors_speak(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = decode(&body) {
            prop_assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn a_cut_review_is_refused(cut in 0_usize..400) {
        let whole = serde_json::to_vec(&review()).unwrap();
        prop_assert!(decode(&whole[..cut.min(whole.len() - 1)]).is_err());
    }
}
