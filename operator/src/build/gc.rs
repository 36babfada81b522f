//! The CronJob that has all nodes compact and forget at once, where a schedule is asked for.

use k8s_openapi::api::{
    batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec},
    core::v1::{Container, PodSpec, PodTemplateSpec},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Inputs, meta, pod};
use crate::names::{Component, HTTP_PORT};

pub(super) fn build(inputs: &Inputs<'_>) -> Option<CronJob> {
    let cache = inputs.cache;
    let schedule = cache.spec.gc.schedule.clone()?;
    Some(CronJob {
        metadata: meta(cache, cache.names.gc(), None),
        spec: Some(CronJobSpec {
            schedule,
            concurrency_policy: Some("Forbid".to_owned()),
            successful_jobs_history_limit: Some(1),
            failed_jobs_history_limit: Some(1),
            job_template: JobTemplateSpec {
                metadata: None,
                spec: Some(JobSpec {
                    backoff_limit: Some(2),
                    active_deadline_seconds: Some(3_600),
                    template: template(inputs),
                    ..JobSpec::default()
                }),
            },
            ..CronJobSpec::default()
        }),
        status: None,
    })
}

fn template(inputs: &Inputs<'_>) -> PodTemplateSpec {
    let names = inputs.names();
    let mut labels = names.labels(None);
    labels.insert("app.kubernetes.io/component".to_owned(), "gc".to_owned());
    let gateway = names.of(Component::Gateway);
    let token = inputs.cache.spec.gc.existing_secret.iter();
    let variables = token.map(|of| pod::variable_of_secret("ZIMCACHE_TOKEN", &of.name, &of.key));
    let arguments = ["cache", "gc", "--url"].map(str::to_owned).into_iter();
    let container = Container {
        name: "gc".to_owned(),
        image: Some(inputs.image().to_owned()),
        image_pull_policy: inputs.cache.spec.image_pull_policy.clone(),
        args: Some(
            arguments
                .chain([format!("http://{gateway}:{HTTP_PORT}")])
                .collect(),
        ),
        env: Some(variables.collect()),
        security_context: Some(pod::container_security()),
        ..Container::default()
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            service_account_name: Some(gateway),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod::pod_security()),
            containers: vec![container],
            ..PodSpec::default()
        }),
    }
}
