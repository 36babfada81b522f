//! The table of checks, in the order in which they run: each finds a cache of three nodes that is well, and leaves one.

mod clients;
mod dashboards;
mod faults;
mod install;
mod removal;
mod rollout;
mod scale;

use anyhow::Result;

use crate::world::World;
use crate::{Args, Volume};

/// What a check needs besides a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Only the API server, or one way in.
    Nothing,
    /// The Service itself: a forwarded port leads to one pod and ends with it.
    Service,
    /// Machines that may be switched off.
    Machines,
    /// The Service, and a Prometheus that asks all pods.
    Prometheus,
}

/// One check.
#[derive(Debug)]
pub(crate) struct Check {
    /// What holds if it passes.
    pub(crate) says: &'static str,
    volume: Volume,
    needs: Needs,
    /// Whether nothing can follow if it fails.
    pub(crate) is_basis: bool,
    pub(crate) run: fn(&mut World) -> Result<()>,
}

impl Check {
    const fn new(
        volume: Volume,
        needs: Needs,
        says: &'static str,
        run: fn(&mut World) -> Result<()>,
    ) -> Check {
        Check {
            says,
            volume,
            needs,
            is_basis: false,
            run,
        }
    }

    const fn basis(mut self) -> Check {
        self.is_basis = true;
        self
    }

    /// Whether it was asked for.
    pub(crate) fn is_wanted(&self, args: &Args) -> bool {
        let named = args
            .only
            .as_deref()
            .is_none_or(|text| self.says.contains(text));
        self.is_basis || (named && self.volume <= args.volume)
    }

    /// Why it cannot be done here.
    pub(crate) fn obstacle(&self, world: &World) -> Option<&'static str> {
        let are_ours = world.machines.is_some();
        match self.needs {
            Needs::Service if !are_ours => Some("the Service cannot be reached from here"),
            Needs::Machines if !are_ours => Some("the machines are not ours"),
            Needs::Prometheus if !are_ours || world.prometheus.is_none() => {
                Some("no Prometheus runs beside the machines")
            }
            _ => None,
        }
    }
}

use Needs::{Machines, Nothing, Prometheus, Service};
use Volume::{Full, Short, Usual};

/// All of them.
pub(crate) const ALL: &[Check] = &[
    Check::new(
        Short,
        Nothing,
        "helm 3 and 4 render the chart and find nothing to complain about",
        install::renders,
    ),
    Check::new(
        Short,
        Nothing,
        "helm install makes a cache of three nodes",
        install::installs,
    )
    .basis(),
    Check::new(
        Short,
        Nothing,
        "no container can write to its root or be root",
        install::is_restricted,
    ),
    Check::new(
        Short,
        Nothing,
        "helm test passes",
        install::helm_test_passes,
    ),
    Check::new(
        Short,
        Nothing,
        "a spec that cannot be is refused with a sentence",
        install::refuses_bad_specs,
    ),
    Check::new(
        Short,
        Nothing,
        "Bazel over gRPC hits everything the second time",
        clients::bazel_over_grpc,
    ),
    Check::new(
        Usual,
        Nothing,
        "Bazel over HTTP hits everything the second time",
        clients::bazel_over_http,
    ),
    Check::new(
        Usual,
        Nothing,
        "Turborepo with a token hits everything the second time",
        clients::turborepo,
    ),
    Check::new(
        Short,
        Service,
        "resizing from 3 to 4 to 2 nodes refuses nobody and loses nothing",
        scale::three_four_two,
    ),
    Check::new(
        Short,
        Service,
        "an operator that is killed while nodes join finishes it",
        faults::operator_killed,
    ),
    Check::new(
        Short,
        Service,
        "a node that is killed is not missed",
        faults::node_killed,
    ),
    Check::new(
        Usual,
        Service,
        "a rolling upgrade refuses nobody",
        rollout::rolling_upgrade,
    ),
    Check::new(
        Usual,
        Service,
        "certificates are rotated without a restart or a failed call",
        rollout::certificates,
    ),
    Check::new(
        Usual,
        Service,
        "a volume that is lost is filled again",
        faults::volume_lost,
    ),
    Check::new(
        Usual,
        Service,
        "a bucket that is away refuses nobody and gets everything later",
        faults::bucket_away,
    ),
    Check::new(
        Usual,
        Nothing,
        "what somebody changed by hand is put right",
        rollout::hands_off,
    ),
    Check::new(
        Usual,
        Service,
        "a Secret that is missing shows, and comes back without a trace",
        rollout::secret_missing,
    ),
    Check::new(
        Usual,
        Prometheus,
        "every query of the dashboards and alerts has data",
        dashboards::have_data,
    ),
    Check::new(
        Short,
        Nothing,
        "uninstalling keeps the data, and a new installation finds it",
        removal::installs_again,
    ),
    Check::new(
        Full,
        Nothing,
        "the same with Helm 3",
        removal::installs_again_with_helm_3,
    ),
    Check::new(
        Full,
        Machines,
        "a machine without power is not missed for long",
        faults::power_cut,
    ),
];
