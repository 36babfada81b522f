//! The conversation with Redis: a connection by URL, and the one script that leases tokens.
//!
//! Answers are not believed blindly: one that is not what the script can say is a failure. Not here: deadlines and
//! attempts (`rounds`). Invariant: no error repeats a password.

use std::{fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, Script, Value, aio::MultiplexedConnection,
};
use zimcache_config::{HostPort, RedisPlace, RedisUrl, Secret};

use super::lease::{Ask, Grant};
use crate::metrics::LeaseFailure;

/// Every name in Redis begins so; the hash tag keeps all of them on one shard.
pub(super) const PREFIX: &str = "zimcache:{limits}:";
const GATEWAYS: &str = "zimcache:{limits}:gateways";
/// How long a gateway counts after it was last heard of, in microseconds.
const MEMBERSHIP: u64 = 5_000_000;
/// Longest that one connection may take: of several sentinels, the next is asked then.
const OPEN: Duration = Duration::from_millis(500);
/// More gateways than anybody has.
const MOST_GATEWAYS: i64 = 100_000;

/// Why Redis did not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It was too slow.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It cannot be reached, or went away.
    #[error("no connection: {0}")]
    Connection(RedisError),
    /// It answered with an error.
    #[error("refused: {0}")]
    Refused(RedisError),
    /// It answered with something else than the script's answer.
    #[error("an answer that makes no sense")]
    Nonsense,
}

impl Failure {
    pub(super) fn kind(&self) -> LeaseFailure {
        match self {
            Failure::Timeout(_) => LeaseFailure::Timeout,
            Failure::Connection(_) => LeaseFailure::Connection,
            Failure::Refused(_) => LeaseFailure::Refused,
            Failure::Nonsense => LeaseFailure::Nonsense,
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        match error.kind() {
            ErrorKind::Io if error.is_timeout() => Failure::Timeout(OPEN),
            ErrorKind::Io => Failure::Connection(error),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Failure::Nonsense,
            _ => Failure::Refused(error),
        }
    }
}

/// What this gateway is called in Redis; another one after each start.
#[derive(Debug)]
pub(super) struct GatewayId(String);

impl GatewayId {
    pub(super) fn random() -> GatewayId {
        let mut bytes = [0; 8];
        // Without randomness gateways would count as one, which only makes their shares larger.
        getrandom::fill(&mut bytes).ok();
        GatewayId(format!("{:016x}", u64::from_le_bytes(bytes)))
    }
}

/// What the script answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Gateways alive.
    pub(super) gateways: u32,
    /// As asked, in that order.
    pub(super) grants: Vec<Grant>,
}

/// A connection to the server that takes writes.
pub(super) struct Redis {
    connection: MultiplexedConnection,
    script: Script,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// Connects, and makes the script known.
    pub(super) async fn connect(url: &RedisUrl) -> Result<Redis, Failure> {
        let address = match &url.place {
            RedisPlace::Server { at, tls } => address(at, *tls),
            RedisPlace::Socket(path) => ConnectionAddr::Unix(path.clone()),
            RedisPlace::Sentinels {
                at,
                master,
                tls,
                password,
            } => find_master(at, master, *tls, password.as_ref().map(Secret::reveal)).await?,
        };
        let mut login = RedisConnectionInfo::default().set_db(url.database.into());
        if let Some(user) = &url.user {
            login = login.set_username(user);
        }
        if let Some(password) = &url.password {
            login = login.set_password(password.reveal());
        }
        let mut connection = open(address, login).await?;
        let script = Script::new(include_str!("lease.lua"));
        script.load_async(&mut connection).await?;
        Ok(Redis { connection, script })
    }

    /// Leases what these limits ask for.
    pub(super) async fn lease(
        &mut self,
        gateway: &GatewayId,
        limits: &[(&str, Ask)],
    ) -> Result<Answer, Failure> {
        let mut call = self.script.prepare_invoke();
        call.key(GATEWAYS).arg(&*gateway.0).arg(MEMBERSHIP);
        for (key, ask) in limits {
            call.key(*key);
            call.arg(micros(ask.interval)).arg(ask.burst);
            call.arg(ask.back).arg(ask.keep);
            call.arg(ask.owed).arg(ask.batch);
        }
        let answer: Value = call.invoke_async(&mut self.connection).await?;
        read(&answer, limits).ok_or(Failure::Nonsense)
    }
}

/// Microseconds, with their fractions.
fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000, nanos % 1_000)
}

/// The answer, if it is one that the script can give.
fn read(answer: &Value, limits: &[(&str, Ask)]) -> Option<Answer> {
    let Value::Array(numbers) = answer else {
        return None;
    };
    let number = |value: &Value| match value {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    let (gateways, rest) = numbers.split_first()?;
    let gateways = number(gateways).filter(|count| (1..=MOST_GATEWAYS).contains(count))?;
    if rest.len() != limits.len() * 2 {
        return None;
    }
    let pairs = rest.chunks_exact(2).zip(limits);
    let grants: Option<Vec<_>> = pairs
        .map(|(pair, (_, ask))| {
            let (tokens, full_in) = (number(pair.first()?)?, number(pair.last()?)?);
            let tokens = match tokens {
                -1 => None,
                tokens => Some(u32::try_from(tokens).ok().filter(|it| *it <= ask.burst)?),
            };
            let full_in = u64::try_from(full_in).ok()?.saturating_mul(1_000);
            Some(Grant { tokens, full_in })
        })
        .collect();
    Some(Answer {
        gateways: u32::try_from(gateways).ok()?,
        grants: grants?,
    })
}

/// Asks the sentinels, one after the other, for the master. Whether it still is one shows when it is written to.
async fn find_master(
    sentinels: &[HostPort],
    master: &str,
    tls: bool,
    password: Option<&str>,
) -> Result<ConnectionAddr, Failure> {
    let mut failure = Failure::Nonsense;
    for sentinel in sentinels {
        match ask_sentinel(sentinel, master, tls, password).await {
            Ok(found) => return Ok(address(&found, tls)),
            Err(failed) => failure = failed,
        }
    }
    Err(failure)
}

async fn ask_sentinel(
    sentinel: &HostPort,
    master: &str,
    tls: bool,
    password: Option<&str>,
) -> Result<HostPort, Failure> {
    let mut login = RedisConnectionInfo::default();
    if let Some(password) = password {
        login = login.set_password(password);
    }
    let mut connection = open(address(sentinel, tls), login).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(master);
    let found: Option<(String, u16)> = question.query_async(&mut connection).await?;
    let (host, port) = found.ok_or(Failure::Nonsense)?;
    Ok(HostPort { host, port })
}

fn address(at: &HostPort, tls: bool) -> ConnectionAddr {
    let (host, port) = (at.host.clone(), at.port);
    if tls {
        return ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        };
    }
    ConnectionAddr::Tcp(host, port)
}

async fn open(
    address: ConnectionAddr,
    login: RedisConnectionInfo,
) -> Result<MultiplexedConnection, Failure> {
    let login = login.set_lib_name("zimcache", env!("CARGO_PKG_VERSION"));
    let info = address.into_connection_info()?.set_redis_settings(login);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(OPEN))
        .set_response_timeout(Some(OPEN));
    let client = Client::open(info)?;
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

#[cfg(test)]
mod tests;
