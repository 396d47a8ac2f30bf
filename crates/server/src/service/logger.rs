//! spire.api.server.logger.v1

use proto::spire::api::server::logger::v1::logger_server::Logger;
use proto::spire::api::server::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};
use proto::spire::api::types::{self, LogLevel};
use runtime::log::{Level, Log};
use tonic::{Request, Response, Status};

use crate::rpc::RpcError;

/// Shows and changes how much is logged.
pub(crate) struct LoggerService {
    log: Log,
}

impl LoggerService {
    pub(crate) const fn new(log: Log) -> Self {
        Self { log }
    }

    fn answer(&self) -> Response<types::Logger> {
        Response::new(types::Logger {
            current_level: wire(self.log.level()).into(),
            launch_level: wire(self.log.launch_level()).into(),
        })
    }
}

#[tonic::async_trait]
impl Logger for LoggerService {
    async fn get_logger(
        &self,
        _: Request<GetLoggerRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        Ok(self.answer())
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let wanted = request.into_inner().new_level;
        let level = LogLevel::try_from(wanted).ok().and_then(level);
        let Some(level) = level else {
            let text = format!("unsupported log level: {wanted}");
            return Err(RpcError::InvalidArgument(text).into());
        };
        self.log.set_level(level);
        Ok(self.answer())
    }

    async fn reset_log_level(
        &self,
        _: Request<ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        self.log.set_level(self.log.launch_level());
        Ok(self.answer())
    }
}

const fn wire(level: Level) -> LogLevel {
    match level {
        Level::Error => LogLevel::Error,
        Level::Warn => LogLevel::Warn,
        Level::Info => LogLevel::Info,
        Level::Debug => LogLevel::Debug,
        Level::Trace => LogLevel::Trace,
    }
}

/// There is nothing above `Error` here.
const fn level(level: LogLevel) -> Option<Level> {
    match level {
        LogLevel::Unspecified => None,
        LogLevel::Panic | LogLevel::Fatal | LogLevel::Error => Some(Level::Error),
        LogLevel::Warn => Some(Level::Warn),
        LogLevel::Info => Some(Level::Info),
        LogLevel::Debug => Some(Level::Debug),
        LogLevel::Trace => Some(Level::Trace),
    }
}
