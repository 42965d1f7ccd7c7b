//! The comparison: several registries on one disk, or on one S3 server, in one run, row by row in turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::address::Target;
use crate::cloud::{Cloud, Tools};
use crate::daemon::Trouble;
use crate::measure::{Process, Sample};
use crate::peers::{Kind, Program, Server, Stores};
use crate::report::{Registry, Report};
use crate::rows::{Row, Work};
use crate::site::{Plan, Site};

/// A registry while it is up.
struct Berth {
    server: Server,
    site: Site,
}

/// What the registries of a comparison have in common.
pub(crate) struct Harbour<'a> {
    /// Everything that is stored lies below this folder.
    pub(crate) folder: &'a Path,
    /// What their stores are served by, if these are not plain folders.
    pub(crate) tools: Option<&'a Tools>,
    /// Whether pulls are sent to the store, where that can be.
    pub(crate) redirect: bool,
}

/// Runs `rows` against `programs` and adds what was measured to `report`.
///
/// Rows of one group share one life of the servers, which are all up but loaded one at a time; each group and each round
/// begins with nothing stored. The order of the registries turns round from row to row and from round to round.
pub(crate) async fn compare(
    plan: &mut Plan,
    rows: &[Row],
    programs: &[Program],
    rounds: u64,
    harbour: &Harbour<'_>,
    report: &mut Report,
) -> Result<(), Trouble> {
    for group in rows.chunk_by(|one, next| one.group == next.group) {
        for round in 0..rounds {
            let life = format!("{}-{round}", group[0].group.replace(' ', "-"));
            let all = harbour.folder.join(&life);
            let start = |tools| Cloud::start(tools, &all.join("cloud"), harbour.redirect);
            let cloud = harbour.tools.map(start).transpose()?;
            let mut berths = Vec::new();
            for program in programs {
                let stores_there = cloud.as_ref().filter(|_| program.stores != Stores::Disk);
                let mooring = stores_there.map(|cloud| cloud.mooring(program.slug())).transpose()?;
                let server = Server::start(program, &all.join(program.slug()), mooring)?;
                let site = Site::new(target(&server)?, Some(server.process()), &life);
                let site = site.metered(stores_there.map(Cloud::meters));
                berths.push(Berth { server, site });
            }
            for (turn, row) in (round..).zip(group) {
                for index in order(berths.len(), turn) {
                    eprintln!(
                        "{}: {} (round {} of {rounds})",
                        row.name,
                        programs[index].name(),
                        round + 1
                    );
                    let sample = pass(plan, row, &mut berths[index]).await?;
                    report.add(row.name, index, sample);
                }
            }
            // All have ended before their data goes.
            drop(berths);
            drop(cloud);
            std::fs::remove_dir_all(&all).map_err(|error| Trouble::System(all.display().to_string(), error))?;
        }
    }
    Ok(())
}

async fn pass(plan: &mut Plan, row: &Row, berth: &mut Berth) -> Result<Sample, Trouble> {
    let Work::Start(stored) = row.work else {
        return Ok(berth.site.pass(plan, row).await);
    };
    let mut sample = Sample::default();
    if let Err(failure) = berth.site.fill(plan, stored).await {
        sample.errors.push(format!("prepare: {}", failure.chain()));
        return Ok(sample);
    }
    for _ in 0..plan.scale.bound(row).count {
        berth.server.restart()?;
        let process = Process::new(berth.server.process());
        sample.merge(Sample {
            latencies: vec![berth.server.startup()],
            server_cpu: process.cpu(),
            client_cpu: Some(Duration::ZERO),
            peak: process.peak(),
            ..Sample::default()
        });
    }
    berth.site.restarted(target(&berth.server)?, berth.server.process());
    Ok(sample)
}

fn target(server: &Server) -> Result<Target, Trouble> {
    Ok(Target::new(&server.url(), None, false)?)
}

/// The numbers below `count`, forwards in even turns and backwards in odd ones.
fn order(count: usize, turn: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}

/// What the report says of the registries that take part and of those that do not.
pub(crate) fn roll(programs: &[Program], absent: &[Kind]) -> (Vec<Registry>, BTreeMap<String, String>) {
    let registries = programs.iter().map(|program| Registry {
        name: program.name().to_owned(),
        version: format!("{} ({})", program.version, program.path.display()),
    });
    let missing = absent
        .iter()
        .map(|kind| (kind.name().to_owned(), format!("not found; {}", kind.advice())));
    (registries.collect(), missing.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registry_has_its_turn_at_being_first() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [2, 1, 0]);
        assert_eq!(order(0, 1), [0; 0]);
    }

    #[test]
    fn who_is_absent_is_named_with_what_to_do() {
        let (registries, missing) = roll(&[], &[Kind::Distribution]);
        assert!(registries.is_empty());
        assert!(missing["distribution"].contains("--install"));
    }
}
