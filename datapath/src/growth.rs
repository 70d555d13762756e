//! Maps that grow: the kernel cannot enlarge one, so a larger one takes its place while connections go on.
//!
//! What the map holds is copied, programs that use the copy are loaded, and the pinned links are swapped to them one by one,
//! as after a restart; all other maps stay. Nothing is written meanwhile, so a connect sees the same whichever map it meets.

use std::fs;

use crate::datapath::Datapath;
use crate::error::Error;
use crate::maps::MapName;
use crate::programs::Programs;

impl Datapath {
    /// Does `work` again with a larger map for as long as one is full and may grow.
    pub(crate) fn with_room<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let full = match work(self) {
                Err(full @ Error::MapFull { .. }) => full,
                outcome => return outcome,
            };
            let Error::MapFull { map, needed, capacity } = full else { return Err(full) };
            let Some(larger) = self.capacities.larger(map, needed, capacity) else { return Err(full) };
            self.grow(map, larger)?;
        }
    }

    /// An error before the first swap changes nothing. After it, links that could not be swapped are with the next plan of
    /// their workload.
    fn grow(&mut self, map: MapName, capacity: u32) -> Result<(), Error> {
        let capacities = self.capacities.with(map, capacity);
        let (before, pins) = (self.map_pins.path(map), self.map_pins.with_another(map));
        let (mut programs, maps) = Programs::load(&pins, capacities)?;
        let steers =
            self.workloads.values().map(|workload| programs.steer(workload.addresses.pod(workload.index)));
        let steers = steers.collect::<Result<Vec<_>, _>>()?;
        self.tables.move_to(maps, map, capacities)?;
        (self.capacities, self.map_pins) = (capacities, pins);
        let mut outcome = Ok(());
        for (workload, mut steer) in self.workloads.values_mut().zip(steers) {
            // Those of an earlier agent wait for their first plan anyway.
            if workload.waiting.is_none() {
                let swapped = programs.swap(&mut steer, &workload.pins);
                if swapped.is_ok() {
                    continue;
                }
                outcome = outcome.and(swapped);
            }
            workload.waiting = Some(steer);
        }
        self.programs = programs;
        tracing::info!(%map, capacity, "a map has grown");
        // The old programs may hold it for a moment; without its pin it goes with them.
        if let Err(error) = fs::remove_file(&before) {
            tracing::warn!(path = %before.display(), %error, "the map that it has replaced stays pinned");
        }
        outcome
    }
}
