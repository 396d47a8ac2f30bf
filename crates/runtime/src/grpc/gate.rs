use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections of a listener, all and by key: one peer cannot take them all.
#[derive(Debug)]
pub struct Gate<K: Eq + Hash> {
    most: usize,
    most_by_key: usize,
    inside: Arc<Mutex<Inside<K>>>,
}

#[derive(Debug)]
struct Inside<K> {
    all: usize,
    by_key: HashMap<K, usize>,
}

impl<K: Clone + Eq + Hash + fmt::Debug> Gate<K> {
    /// At most `most` at once, and `most_by_key` of one key.
    pub fn new(most: usize, most_by_key: usize) -> Self {
        let inside = Inside {
            all: 0,
            by_key: HashMap::new(),
        };
        Self {
            most,
            most_by_key,
            inside: Arc::new(Mutex::new(inside)),
        }
    }

    /// Lets one more in, until the guard is dropped; or says why not.
    ///
    /// # Errors
    /// When all places are taken, or all of this key.
    pub fn enter(&self, key: K) -> Result<Entered<K>, Full<K>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.all >= self.most {
            return Err(Full::All(self.most));
        }
        let by_key = inside.by_key.entry(key.clone()).or_default();
        if *by_key >= self.most_by_key {
            return Err(Full::Key(key, self.most_by_key));
        }
        *by_key += 1;
        inside.all += 1;
        Ok(Entered {
            key,
            inside: self.inside.clone(),
        })
    }
}

/// One that is inside; leaves when dropped.
#[derive(Debug)]
pub struct Entered<K: Eq + Hash> {
    key: K,
    inside: Arc<Mutex<Inside<K>>>,
}

impl<K: Eq + Hash> Drop for Entered<K> {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all -= 1;
        if let Some(by_key) = inside.by_key.get_mut(&self.key) {
            *by_key -= 1;
            if *by_key == 0 {
                inside.by_key.remove(&self.key);
            }
        }
    }
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub enum Full<K> {
    /// All are taken: how many there are.
    All(usize),
    /// All of this key are.
    Key(K, usize),
}

impl<K: fmt::Debug> fmt::Display for Full<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(most) => write!(f, "all {most} connections are taken"),
            Self::Key(key, most) => write!(f, "all {most} connections of peer {key:?} are taken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_13_one_peer_cannot_take_all() {
        let gate = Gate::new(3, 2);
        let first = gate.enter("a").ok().unwrap();
        let _second = gate.enter("a").ok().unwrap();
        assert_eq!(gate.enter("a").err().unwrap(), Full::Key("a", 2));
        let _third = gate.enter("b").ok().unwrap();
        assert_eq!(gate.enter("c").err().unwrap(), Full::All(3));
        drop(first);
        assert!(gate.enter("a").is_ok());
        assert_eq!(gate.inside.lock().unwrap().by_key.len(), 2);
    }
}
