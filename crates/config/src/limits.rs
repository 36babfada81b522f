//! Settings of the rate limits. None is set by default.

use crate::{
    Rate, RedisUrl,
    field::settings,
    problem::{Checks, Problems},
};

settings! {
    /// How many requests are answered: in all, and per caller. A request must pass every limit that is set.
    pub struct LimitsConfig in "limits" {
        /// All requests together.
        global: Option<Rate> = None,
            accepts "a rate such as 1000/s or 1000/s burst 10000", flag "--limit-global";
        /// Requests of one client address.
        per_address: Option<Rate> = None,
            accepts "a rate such as 10/s burst 100", flag "--limit-per-address";
        /// Requests with one token or user name.
        per_token: Option<Rate> = None,
            accepts "a rate such as 50/s burst 500", flag "--limit-per-token";
        /// Look-ups (GET, HEAD) of one client address.
        reads: Option<Rate> = None,
            accepts "a rate such as 100/m";
        /// Uploads and deletions of one client address.
        writes: Option<Rate> = None,
            accepts "a rate such as 100/m";
        /// Requests of one client address for what is no cached value: health, metrics, figures, collections.
        pages: Option<Rate> = None,
            accepts "a rate such as 10/s burst 100";
        /// Give callers that mostly fail a smaller share of their limit, down to half.
        reputation: bool = true,
            accepts "true or false";
        /// Most callers remembered; beyond, those longest idle are forgotten.
        max_callers: usize = 100_000,
            accepts "a number from 1000 to 10000000";
        /// Redis through which several gateways keep to one limit together; absent, each server counts for itself.
        /// Its passwords are never printed. It serves limits alone: without it each gateway keeps to its share.
        redis: Option<RedisUrl> = None,
            accepts "redis://[user[:password]@]host[:port][/database], rediss://… with TLS, redis+unix:///path, or \
redis+sentinel://host[:port],…/master", flag "--redis-url";
    }
}

impl LimitsConfig {
    /// Whether any limit is set.
    pub fn any(&self) -> bool {
        let all = [
            self.global,
            self.per_address,
            self.per_token,
            self.reads,
            self.writes,
            self.pages,
        ];
        all.iter().any(Option::is_some)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        let holds = (1_000..=10_000_000).contains(&self.max_callers);
        checks.require("max_callers", holds, self.max_callers);
        checks.finish()
    }
}
