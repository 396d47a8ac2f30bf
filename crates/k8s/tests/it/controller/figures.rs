//! CTL-19: what the controller shows of itself.

use serde_json::Value as Json;
use testkit::TestServer;

use super::*;

/// By resource and result, how long passes and pods took, what waits, and what failed.
#[tokio::test(flavor = "multi_thread")]
async fn ctl_19_figures_say_what_became_of_each_resources_entries() {
    let server = TestServer::start().await;
    let mut controller = Loop::start(&server, "");
    let broken = "{{ if eq .PodMeta.Name \"p0\" }}{{ index .PodMeta.Labels \"none\" }}{{ else }}spiffe://example.org/{{ .PodMeta.Name }}{{ end }}";
    controller.list(&[rule(1, broken)], &pods(3)).await;
    controller.until(2).await;
    let settled = |status: &Json| {
        status["stats"]["entriesToSet"] == 2 && status["conditions"][0]["reason"] == "RenderFailed"
    };
    controller.status(settled).await;
    let of = |result: &str, count: usize| {
        format!(
            "test_resource_entries{{kind=\"ClusterSPIFFEID\",resource=\"r\",result=\"{result}\"}} {count}"
        )
    };
    for line in [
        of("set", 2),
        of("unrendered", 1),
        of("failed", 0),
        of("masked", 0),
        "test_entry_writes{call=\"create\",result=\"done\"} 2".to_owned(),
        "test_time_to_entry_seconds_count 2".to_owned(),
        "test_listing_elapsed_time_count 1".to_owned(),
        "test_pods 3".to_owned(),
        "test_queued_pods 0".to_owned(),
        "test_queued_entries 0".to_owned(),
    ] {
        shown(&controller, &line).await;
    }
    // A resource that is gone has none.
    let gone = Event::Delete(Kind::SpiffeId, rule(1, broken));
    controller.tell(gone).await;
    controller.until(0).await;
    shown(&controller, &of("set", 0)).await;
    let _folder = server.stop().await;
    let again = Event::Apply(Kind::SpiffeId, rule(2, ID));
    controller.tell(again).await;
    shown(&controller, "test_server_errors{call=\"create\"} ").await;
}

/// Waits until the figures have a line that begins so.
async fn shown(controller: &Loop, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let figures = controller.metrics.render();
        if figures.lines().any(|there| there.starts_with(line)) {
            return;
        }
        assert!(Instant::now() < deadline, "{line} is not in\n{figures}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
