//! How often one client address may make the server work: attesting and issuing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::Metrics;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::config::RateLimit;
use crate::rpc::RpcError;

/// Work that is limited, each kind by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Attesting an agent.
    Attest,
    /// Signing X.509-SVIDs.
    SignX509,
    /// Signing JWT-SVIDs.
    SignJwt,
    /// Renewing an agent's SVID.
    Renew,
    /// An agent's status.
    PostStatus,
}

impl Work {
    /// How many a second, and how many at once: SPIRE's figures.
    const fn rate(self) -> u32 {
        match self {
            Self::Attest => 1,
            Self::PostStatus => 10,
            Self::SignX509 | Self::SignJwt | Self::Renew => 500,
        }
    }
}

/// Waits for a caller's turn to have `count` pieces of work done. Callers over a unix socket never wait.
///
/// # Errors
/// When it is more than may ever be done at once.
pub(crate) async fn take<T>(
    request: &Request<T>,
    work: Work,
    count: usize,
) -> Result<(), RpcError> {
    match request.extensions().get::<Turn>() {
        Some(turn) => {
            let call = turn.metrics.rate_limit(&turn.path);
            let taken = turn.take(work, count).await;
            call.finish(taken.as_ref().map_or_else(RpcError::code, |()| Code::Ok));
            taken
        }
        None => Ok(()),
    }
}

/// The limits of one client address, in a request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    limiter: Arc<Limiter>,
    address: IpAddr,
    metrics: Metrics,
    /// The method's.
    path: String,
}

impl Turn {
    pub(crate) fn new(
        limiter: Arc<Limiter>,
        address: IpAddr,
        metrics: Metrics,
        path: String,
    ) -> Self {
        let address = subscriber(address);
        Self {
            limiter,
            address,
            metrics,
            path,
        }
    }

    async fn take(&self, work: Work, count: usize) -> Result<(), RpcError> {
        let turn = self
            .limiter
            .reserve(self.address, work, count, Instant::now())?;
        tokio::time::sleep_until(turn).await;
        Ok(())
    }
}

/// Whose address it is: of IPv6, one client has a whole /64 to choose from.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The limits of all client addresses.
#[derive(Debug)]
pub(crate) struct Limiter {
    on: RateLimit,
    lanes: Mutex<HashMap<(IpAddr, Work), Instant>>,
}

/// Beyond so many lanes those at rest are forgotten.
const MANY_LANES: usize = 4096;
/// A caller whose turn is further off is sent away: it would have given up by then.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Limiter {
    pub(crate) fn new(on: RateLimit) -> Self {
        Self {
            on,
            lanes: Mutex::default(),
        }
    }

    /// When `count` pieces of work may be done, which is booked. A lane remembers when it will be at rest: the bucket is
    /// full then, and a burst as large as one second's work may start at once.
    fn reserve(
        &self,
        address: IpAddr,
        work: Work,
        count: usize,
        now: Instant,
    ) -> Result<Instant, RpcError> {
        let limited = match work {
            Work::Attest => self.on.attestation,
            Work::SignX509 | Work::SignJwt | Work::Renew => self.on.signing,
            Work::PostStatus => true,
        };
        if !limited {
            return Ok(now);
        }
        let rate = work.rate();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count > rate {
            return Err(RpcError::ResourceExhausted(format!(
                "rate ({count}) exceeds burst size ({rate})"
            )));
        }
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() > MANY_LANES {
            lanes.retain(|_, rest| *rest > now);
        }
        let rest = lanes.entry((address, work)).or_insert(now);
        let filled = (*rest).max(now) + Duration::from_secs(1) * count / rate;
        // The bucket holds one second's work.
        let turn = filled
            .checked_sub(Duration::from_secs(1))
            .map_or(now, |turn| turn.max(now));
        if turn > now + LONGEST_WAIT {
            return Err(RpcError::ResourceExhausted(
                "too many calls from this address; try again later".into(),
            ));
        }
        *rest = filled;
        Ok(turn)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const ON: RateLimit = RateLimit {
        attestation: true,
        signing: true,
    };

    /// Milliseconds to wait.
    fn wait(limiter: &Limiter, address: IpAddr, work: Work, count: usize, now: Instant) -> u128 {
        let turn = limiter.reserve(address, work, count, now).unwrap();
        turn.duration_since(now).as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn one_attestation_a_second_from_each_address() {
        let limiter = Limiter::new(ON);
        let now = Instant::now();
        let waits = [HERE, HERE, HERE, THERE].map(|one| wait(&limiter, one, Work::Attest, 1, now));
        assert_eq!(waits, [0, 1000, 2000, 0]);
        let later = now + Duration::from_secs(10);
        assert_eq!(wait(&limiter, HERE, Work::Attest, 1, later), 0);
    }

    /// One client has 2^64 addresses of IPv6 to choose from.
    #[tokio::test(start_paused = true)]
    async fn a_64_of_ipv6_is_one_client() {
        let limiter = Arc::new(Limiter::new(ON));
        let mut waits = Vec::new();
        for address in [
            "2001:db8:0:1::1",
            "2001:db8:0:1:ffff::2",
            "2001:db8:0:2::1",
            "::ffff:10.0.0.1",
            "10.0.0.1",
            "10.0.0.2",
        ] {
            let metrics = Metrics::with_labels("server", &[]);
            let address = address.parse().unwrap();
            let turn = Turn::new(Arc::clone(&limiter), address, metrics, String::new());
            let started = Instant::now();
            turn.take(Work::Attest, 1).await.unwrap();
            waits.push(started.elapsed().as_secs());
        }
        assert_eq!(waits[1], 1, "the same /64");
        assert_eq!((waits[0], waits[2]), (0, 0), "each /64 by itself");
        assert_eq!(
            (waits[3], waits[4], waits[5]),
            (0, 1, 0),
            "a mapped IPv4 address is that address"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_of_signing_at_once_then_at_the_rate() {
        let limiter = Limiter::new(ON);
        let now = Instant::now();
        let waits = [400, 100, 50, 500].map(|n| wait(&limiter, HERE, Work::SignX509, n, now));
        assert_eq!(waits, [0, 0, 100, 1100]);
        assert_eq!(
            wait(&limiter, HERE, Work::SignJwt, 1, now),
            0,
            "lanes are apart"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_second_of_work_is_refused() {
        let limiter = Limiter::new(ON);
        let error = limiter
            .reserve(HERE, Work::SignX509, 501, Instant::now())
            .unwrap_err();
        assert!(matches!(error, RpcError::ResourceExhausted(_)), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_has_an_end() {
        let limiter = Limiter::new(ON);
        let now = Instant::now();
        let served = (0..100)
            .filter(|_| limiter.reserve(HERE, Work::Attest, 1, now).is_ok())
            .count();
        assert_eq!(served, 31, "one now, thirty waiting");
    }

    #[tokio::test(start_paused = true)]
    async fn switched_off() {
        let limiter = Limiter::new(RateLimit {
            attestation: false,
            signing: false,
        });
        let now = Instant::now();
        for work in [Work::Attest, Work::SignX509, Work::SignJwt, Work::Renew] {
            assert_eq!(wait(&limiter, HERE, work, 10_000, now), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_at_rest_are_forgotten() {
        let limiter = Limiter::new(ON);
        let now = Instant::now();
        for n in 0..10_000_u32 {
            let address = IpAddr::V4(Ipv4Addr::from(n));
            let _ = limiter.reserve(
                address,
                Work::Attest,
                1,
                now + Duration::from_millis(n.into()),
            );
        }
        assert!(limiter.lanes.lock().unwrap().len() <= MANY_LANES + 1);
    }
}
