//! How many connections a listener has, in all and of each address, so that one peer can't take all its places.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The places of a listener. Each connection takes one, and so does each request that is under way on one of HTTP/2.
#[derive(Debug)]
pub struct Addresses {
    max: usize,
    of_one_max: usize,
    taken: Mutex<Taken>,
}

/// As large as the number of places, at most.
#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    of_each: HashMap<IpAddr, usize>,
}

impl Addresses {
    /// At most so many places, and so many for one address.
    pub fn new(max: usize, of_one_max: usize) -> Arc<Self> {
        Arc::new(Self { max, of_one_max, taken: Mutex::default() })
    }

    /// A place for one more of this address, if it may have one.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this = taken.of_each.get(&address).copied().unwrap_or(0);
        if taken.in_all >= self.max || of_this >= self.of_one_max {
            return None;
        }
        taken.in_all += 1;
        taken.of_each.insert(address, of_this + 1);
        Some(Place { addresses: Arc::clone(self), address })
    }
}

/// What counts as one address: an IPv6 network of 64 bits is usually one machine's own.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.addresses.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        if let Some(count) = taken.of_each.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.of_each.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_bounded_number_of_places_and_so_have_all_together() {
        let addresses = Addresses::new(5, 2);
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        let first = enter("10.0.0.1").unwrap();
        let second = enter("::ffff:10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_none());
        let other = enter("2001:db8::1").unwrap();
        let neighbour = enter("2001:db8::ffff:2").unwrap();
        assert!(enter("2001:db8::3").is_none());
        let last = enter("2001:db8:0:1::3").unwrap();
        assert!(enter("10.0.0.2").is_none(), "all are taken");
        drop(first);
        assert!(enter("10.0.0.1").is_some());
        drop((second, other, neighbour, last));
        let taken = addresses.taken.lock().unwrap();
        assert!(taken.of_each.is_empty() && taken.in_all == 0);
    }
}
