//! Commands to the agent, here a Workload API that says what a test tells it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use identity::{Bundle, BundleSet, JwtSvid, X509Svid};
use proto::convert;
use proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509svidRequest, X509svidResponse,
};
use runtime::Clock;
use serde_json::Value;
use tempfile::TempDir;
use testkit::TestServer;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::{command, run, signet};

/// The Workload API for one workload.
struct Workload {
    svid: X509Svid,
    token: String,
    bundle: Bundle,
    federated: Bundle,
}

struct Agent {
    dir: TempDir,
    _tasks: JoinSet<()>,
}

impl Agent {
    async fn start() -> Self {
        let (own, other) = (TestServer::start().await, TestServer::start().await);
        let federated = Bundle {
            trust_domain: "other.test".parse().unwrap(),
            ..other.bundle().await
        };
        let line = "server jwt mint -spiffeID spiffe://example.org/web -audience a";
        let workload = Workload {
            svid: own.mint(&own.id("/web")).await,
            token: signet(&own.addresses().socket, line)
                .ok()
                .trim_end()
                .to_owned(),
            bundle: own.bundle().await,
            federated,
        };
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let served = Server::builder()
                .add_service(SpiffeWorkloadApiServer::new(workload))
                .serve_with_incoming(UnixListenerStream::new(listener));
            served.await.unwrap();
        });
        Self { dir, _tasks: tasks }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Workload {
    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<BoxStream<X509svidResponse>>, Status> {
        check_header(&request)?;
        let answer = X509svidResponse {
            svids: vec![convert::workload_x509_svid(
                &self.svid,
                &self.bundle,
                "internal",
            )],
            federated_bundles: [(
                self.federated.trust_domain.id().to_string(),
                self.federated.x509_der().into(),
            )]
            .into(),
            ..Default::default()
        };
        // Stays open, as a living agent's stream.
        Ok(Response::new(held(answer)))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        check_header(&request)?;
        if request.get_ref().audience != ["a", "b"] {
            return Err(Status::permission_denied("no identity issued"));
        }
        let svid = proto::workload::Jwtsvid {
            spiffe_id: "spiffe://example.org/web".into(),
            svid: self.token.clone(),
            hint: String::new(),
        };
        Ok(Response::new(JwtsvidResponse { svids: vec![svid] }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<BoxStream<JwtBundlesResponse>>, Status> {
        check_header(&request)?;
        let bundles = [(
            "spiffe://example.org".to_owned(),
            self.bundle.to_jwks().into(),
        )]
        .into();
        Ok(Response::new(held(JwtBundlesResponse { bundles })))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        check_header(&request)?;
        let ValidateJwtsvidRequest { audience, svid } = request.get_ref();
        let bundles = BundleSet::from_iter([std::sync::Arc::new(self.bundle.clone())]);
        let valid = JwtSvid::verify(svid, audience, &bundles, Clock::system().now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(ValidateJwtsvidResponse {
            spiffe_id: valid.id.to_string(),
            claims: Some(convert::wire_claims(&valid.claims)),
        }))
    }
}

fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("workload.spiffe.io") {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument(
            "security header missing from request",
        )),
    }
}

fn held<T: Send + 'static>(answer: T) -> BoxStream<T> {
    use tokio_stream::StreamExt as _;
    Box::pin(tokio_stream::once(Ok(answer)).chain(tokio_stream::pending()))
}

/// Refuses every call with one code, and counts them.
#[derive(Clone)]
struct Refusing {
    code: Code,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Refusing {
    async fn fetch_x509svid(
        &self,
        _: Request<X509svidRequest>,
    ) -> Result<Response<BoxStream<X509svidResponse>>, Status> {
        self.calls.fetch_add(1, Relaxed);
        Err(Status::new(self.code, "not you"))
    }
}

impl Refusing {
    /// A Workload API at `api.sock` of the folder.
    fn start(code: Code) -> (Self, TempDir, JoinSet<()>) {
        let refusing = Self {
            code,
            calls: Arc::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let mut tasks = JoinSet::new();
        let service = SpiffeWorkloadApiServer::new(refusing.clone());
        tasks.spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            let served = Server::builder().add_service(service);
            served.serve_with_incoming(incoming).await.unwrap();
        });
        (refusing, dir, tasks)
    }
}

/// A call that the agent will never accept is made once; one that it may accept later, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn e_09_what_is_invalid_is_not_tried_again() {
    let (refusing, dir, _tasks) = Refusing::start(Code::InvalidArgument);
    let said = signet(&dir.path().join("api.sock"), "agent api watch").failed();
    assert_eq!(said, "Error: not you (InvalidArgument)\n");
    assert_eq!(refusing.calls.load(Relaxed), 1);

    for code in [Code::Unavailable, Code::PermissionDenied] {
        let (refusing, dir, _tasks) = Refusing::start(code);
        let mut command = command("agent api watch -socketPath");
        command.arg(dir.path().join("api.sock"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut watch = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while refusing.calls.load(Relaxed) < 3 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        watch.kill().unwrap();
        watch.wait().unwrap();
        assert!(refusing.calls.load(Relaxed) >= 3, "{code:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e_06_the_environment_tells_where_the_agent_is() {
    let agent = Agent::start().await;
    let fetch = |endpoint: &str| {
        let mut command = command("agent api fetch -timeout 10s");
        run(command.env("SPIFFE_ENDPOINT_SOCKET", endpoint), "")
    };
    let endpoint = format!("unix://{}", agent.socket().display());
    assert!(fetch(&endpoint).ok().starts_with("Received 1 svid"));
    let wrong = fetch("tcp://localhost:8000").failed();
    assert!(
        wrong.starts_with("Error: SPIFFE_ENDPOINT_SOCKET is \"tcp://localhost:8000\": "),
        "{wrong}"
    );
    // A flag comes before the environment.
    let mut told = command("agent api fetch -timeout 10s -socketPath");
    told.arg(agent.socket());
    let told = run(told.env("SPIFFE_ENDPOINT_SOCKET", "unix:///nowhere"), "");
    assert!(told.ok().starts_with("Received 1 svid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn x509_svids_are_fetched_printed_and_written() {
    let agent = Agent::start().await;
    let told = signet(&agent.socket(), "agent api fetch -timeout 10s").ok();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("Received 1 svid after "), "{told}");
    assert_eq!(lines[2], "SPIFFE ID:\t\tspiffe://example.org/web");
    assert_eq!(lines[3], "Hint:\t\t\tinternal");
    let labels: Vec<&str> = lines[4..10]
        .iter()
        .map(|line| line.split_once('\t').unwrap().0)
        .collect();
    assert_eq!(
        labels,
        [
            "SVID Valid After:",
            "SVID Valid Until:",
            "CA #1 Valid After:",
            "CA #1 Valid Until:",
            "[spiffe://other.test] CA #1 Valid After:",
            "[spiffe://other.test] CA #1 Valid Until:",
        ]
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let line = format!("agent api fetch x509 -timeout 10s -silent -write {path}");
    let written = signet(&agent.socket(), &line).ok();
    assert_eq!(
        written,
        format!(
            "Writing SVID #0 to file {path}/svid.0.pem.\nWriting key #0 to file {path}/svid.0.key.\n\
             Writing bundle #0 to file {path}/bundle.0.pem.\nWriting federated bundle #0 for trust \
             domain other.test to file {path}/federated_bundle.0.0.pem.\n"
        )
    );

    let json = signet(
        &agent.socket(),
        "agent api fetch x509 -timeout 10s -output json",
    )
    .ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["svids"][0]["hint"], "internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn svids_are_held_against_the_authorities_of_a_file() {
    let agent = Agent::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let ask = |more: &str| {
        let line = format!("agent api fetch x509 -timeout 10s {more}");
        signet(&agent.socket(), &line)
    };
    ask(&format!("-silent -write {path}")).ok();
    let told = ask(&format!("-bundle {path}/bundle.0.pem")).ok();
    assert!(told.contains("spiffe://example.org/web"), "{told}");
    // Authorities of somebody else, whatever is printed.
    for output in ["pretty", "json"] {
        let other = format!("-bundle {path}/federated_bundle.0.0.pem -output {output}");
        let said = ask(&other).failed();
        let expected = format!(
            "spiffe://example.org/web is not signed by an authority of {path}/federated_bundle.0.0.pem"
        );
        assert!(said.contains(&expected), "{said}");
    }
    for (file, expected) in [("svid.0.key", "parse"), ("none.pem", "read")] {
        let said = ask(&format!("-bundle {path}/{file}")).failed();
        assert!(
            said.contains(&format!("{expected} {path}/{file}")),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_svids_are_fetched_and_validated() {
    let agent = Agent::start().await;
    let ask = |line: &str| signet(&agent.socket(), &format!("agent api {line} -timeout 10s"));
    let told = ask("fetch jwt -audience a,b").ok();
    let token = told
        .strip_prefix("token(spiffe://example.org/web):\n\t")
        .and_then(|rest| rest.lines().next())
        .unwrap();
    assert!(
        told.contains("\nbundle(spiffe://example.org):\n\t{\"keys\":["),
        "{told}"
    );
    // Given twice is the same as parted by a comma, and JSON is an array of both answers.
    let json = ask("fetch jwt -audience a -audience b -output json").ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["svids"][0]["svid"], token);
    assert!(json[1]["bundles"]["spiffe://example.org"].is_string());
    assert_eq!(
        ask("fetch jwt -audience c").failed(),
        "Error: no identity issued (PermissionDenied)\n"
    );

    let valid = ask(&format!("validate jwt -audience a -svid {token}")).ok();
    assert!(
        valid.starts_with("SVID is valid.\nSPIFFE ID : spiffe://example.org/web\nClaims    : {")
    );
    let wrong = ask(&format!("validate jwt -audience z -svid {token}")).failed();
    assert!(wrong.starts_with("Error: SVID is not valid: "), "{wrong}");
}
