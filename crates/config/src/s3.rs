//! Settings of the durable tier: a bucket of S3, or of a server that speaks like it.
//!
//! Credentials are no settings: they come from where the AWS tools look for them (environment, profile, web identity,
//! instance).

use std::{path::PathBuf, time::Duration};

use crate::{
    field::settings,
    human::duration_text,
    problem::{Checks, Problems},
};

settings! {
    /// The bucket that everything is copied to.
    pub struct S3Config in "s3" {
        /// The bucket. Absent: there is no durable tier.
        bucket: Option<String> = None,
            accepts "the name of a bucket", flag "--s3-bucket";
        /// A server other than AWS.
        endpoint: Option<String> = None,
            accepts "an http:// or https:// URL", flag "--s3-endpoint";
        /// The region; absent, the AWS tools' settings say it, else `us-east-1`.
        region: Option<String> = None,
            accepts "a region such as eu-central-1", flag "--s3-region";
        /// What every key starts with.
        prefix: String = String::new(),
            accepts "a text such as team-a, without a slash at either end", flag "--s3-prefix";
        /// Put the bucket in the path, not in the host name; servers other than AWS mostly want it so.
        path_style: Option<bool> = None,
            accepts "true or false; absent, true if there is an endpoint", flag "--s3-path-style";
        /// Make the bucket if it is missing.
        create_bucket: bool = false,
            accepts "true or false", flag "--s3-create-bucket";
        /// Certificates (PEM) that are trusted besides those of the system.
        ca_file: Option<PathBuf> = None,
            accepts "the path of a PEM file", flag "--s3-ca";
        /// How long after its last refresh an object stays in the bucket: what a lifecycle rule there says, or what `zim
        /// cluster sweep` removes.
        #[serde(with = "crate::human::duration")]
        ttl: Duration = Duration::from_hours(30 * 24),
            accepts "a duration such as 30d, at least 2d", flag "--s3-ttl";
    }
}

/// Below this, the margin of a day between refresh and removal would be gone.
const LEAST_TTL: Duration = Duration::from_hours(48);

impl S3Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        if let Some(bucket) = &self.bucket {
            let legal = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            let holds = (3..=63).contains(&bucket.len()) && bucket.chars().all(legal);
            checks.require("bucket", holds, bucket);
        }
        if let Some(endpoint) = &self.endpoint {
            let holds = endpoint.starts_with("http://") || endpoint.starts_with("https://");
            checks.require("endpoint", holds, endpoint);
        }
        let prefix = &self.prefix;
        let holds = !prefix.starts_with('/') && !prefix.ends_with('/');
        checks.require("prefix", holds, prefix);
        checks.require("ttl", self.ttl >= LEAST_TTL, duration_text(self.ttl));
        checks.finish()
    }

    /// Whether the bucket is in the path of a request.
    pub fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_bucket_is_refused() {
        let with = |bucket: &str, endpoint: &str| S3Config {
            bucket: Some(bucket.to_owned()),
            endpoint: Some(endpoint.to_owned()),
            ..S3Config::default()
        };
        assert!(with("cache", "http://127.0.0.1:7070").validate().is_ok());
        assert_eq!(with("a b", "ftp://x").validate().unwrap_err().0.len(), 2);
        assert!(with("cache", "http://x").is_path_style());
        assert!(!S3Config::default().is_path_style());
    }
}
