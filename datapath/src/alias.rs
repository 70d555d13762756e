//! A backend set as an alias table: a weighted choice with one random number, whatever the number of backends.
//!
//! M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE Transactions on
//! Software Engineering 17(9), 1991. In integers, so that no weight is lost to rounding.

use orlop_abi::{Backend, Port};
use orlop_plan::kernel::BackendSet;

/// One full draw of a slot.
const WHOLE: u128 = 1 << 32;

/// The slots of `set`'s slice, in the order of its backends.
pub(crate) fn table(set: &BackendSet) -> Vec<Backend> {
    let slots = set.backends.len() as u128;
    let total: u128 = set.backends.iter().map(|b| u128::from(b.weight.max(1))).sum();
    let mut table: Vec<Backend> = (0_u32..)
        .zip(&set.backends)
        .map(|(index, backend)| Backend {
            address: backend.address.ip().into(),
            port: Port::new(backend.address.port()),
            padding: 0,
            alias: index,
            threshold: u32::MAX,
            padding2: 0,
        })
        .collect();

    // A slot of exactly the mean weight holds `total`; the light ones are filled up from the heavy ones.
    let (mut light, mut heavy) = (Vec::new(), Vec::new());
    for (index, backend) in set.backends.iter().enumerate() {
        let share = u128::from(backend.weight.max(1)) * slots;
        if share < total { light.push((index, share)) } else { heavy.push((index, share)) }
    }
    while let (Some((index, share)), Some((donor, left))) = (light.pop(), heavy.pop()) {
        if let Some(slot) = table.get_mut(index) {
            slot.threshold = u32::try_from(share * WHOLE / total).unwrap_or(u32::MAX);
            slot.alias = u32::try_from(donor).unwrap_or(u32::MAX);
        }
        let left = left - (total - share);
        if left < total { light.push((donor, left)) } else { heavy.push((donor, left)) }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(weights: &[u32]) -> BackendSet {
        let address = |port: usize| format!("10.0.0.1:{port}").parse().unwrap();
        let backends = weights.iter().enumerate();
        BackendSet {
            backends: backends
                .map(|(i, &weight)| orlop_plan::kernel::Backend { address: address(i + 1), weight })
                .collect(),
        }
    }

    /// The share of all draws that each backend gets, by the rule that the kernel program follows.
    fn shares(table: &[Backend]) -> Vec<f64> {
        let slots = f64::from(u32::try_from(table.len()).unwrap());
        let mut shares = vec![0.0; table.len()];
        for (index, slot) in table.iter().enumerate() {
            let own = f64::from(slot.threshold) / f64::from(u32::MAX);
            shares[index] += own / slots;
            shares[slot.alias as usize] += (1.0 - own) / slots;
        }
        shares
    }

    proptest! {
        #[test]
        fn every_backend_gets_its_share_of_the_weight(weights in prop::collection::vec(1_u32.., 1..200)) {
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            for (share, weight) in shares(&table(&set(&weights))).into_iter().zip(&weights) {
                prop_assert!((share - f64::from(*weight) / total).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn one_backend_takes_everything() {
        assert_eq!(shares(&table(&set(&[7]))), [1.0]);
    }

    #[test]
    fn the_extremes_of_weight_do_not_overflow() {
        let shares = shares(&table(&set(&[u32::MAX, 1, u32::MAX])));
        assert!((shares[0] - 0.5).abs() < 1e-6 && shares[1] < 1e-6 && (shares[2] - 0.5).abs() < 1e-6);
    }

    #[test]
    fn slots_keep_the_order_and_the_addresses_of_the_backends() {
        let ports: Vec<_> = table(&set(&[1, 2, 3])).iter().map(|slot| u16::from_be(slot.port.0)).collect();
        assert_eq!(ports, [1, 2, 3]);
    }
}
