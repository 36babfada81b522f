//! Which hash function the clients of a namespace use where a name of 64 digits does not tell: SHA-256 or BLAKE3.
//!
//! Learned from blobs that verified or were found. It only orders the attempts: small bodies are tried under every
//! function anyway, large ones under the likeliest alone, because they cannot be kept until their hash is known. Where
//! nobody uses BLAKE3 this costs one relaxed load per request. Bounded by [`MOST_NAMESPACES`].

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use zimcache_types::{Function, Hash, Namespace};

/// More namespaces than this are forgotten, all at once.
const MOST_NAMESPACES: usize = 10_000;

/// What was learned.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    any: AtomicBool,
    blake3: Mutex<HashSet<Namespace>>,
}

impl Functions {
    /// The hash as the output of each function that may have been meant, likeliest first.
    pub(crate) fn readings(
        &self,
        namespace: &Namespace,
        hash: &Hash,
    ) -> impl Iterator<Item = Hash> + Clone + use<> {
        let hash = *hash;
        let blake3_first =
            hash.function().readings().contains(&Function::Blake3) && self.prefers(namespace);
        let functions: &[Function] = if blake3_first {
            &[Function::Blake3, Function::Sha256]
        } else {
            hash.function().readings()
        };
        functions
            .iter()
            .filter_map(move |function| hash.reinterpret(*function))
    }

    /// Records that a blob of this name was stored or found.
    pub(crate) fn learn(&self, namespace: &Namespace, function: Function) {
        match function {
            Function::Blake3 => {
                let mut blake3 = self.blake3.lock();
                if blake3.len() >= MOST_NAMESPACES {
                    blake3.clear();
                }
                blake3.insert(namespace.clone());
                self.any.store(true, Ordering::Relaxed);
            }
            Function::Sha256 if self.any.load(Ordering::Relaxed) => {
                self.blake3.lock().remove(namespace);
            }
            // Their names are taken for no other function's.
            Function::Sha256
            | Function::Sha1
            | Function::Md5
            | Function::Sha384
            | Function::Sha512
            | Function::Sha256Tree
            | Function::GitSha1 => {}
        }
    }

    /// Whether a blob of a function other than the likeliest was ever seen.
    pub(crate) fn any_other(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn prefers(&self, namespace: &Namespace) -> bool {
        self.any.load(Ordering::Relaxed) && self.blake3.lock().contains(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(functions: &Functions, hex_len: usize) -> Vec<Function> {
        let hash = Hash::parse_untyped(&"0".repeat(hex_len)).unwrap();
        let readings = functions.readings(&Namespace::default(), &hash);
        readings.map(|hash| hash.function()).collect()
    }

    #[test]
    fn the_function_seen_last_is_tried_first() {
        let functions = Functions::default();
        assert_eq!(order(&functions, 64), [Function::Sha256, Function::Blake3]);
        functions.learn(&Namespace::default(), Function::Blake3);
        assert_eq!(order(&functions, 64), [Function::Blake3, Function::Sha256]);
        assert_eq!(order(&functions, 40), [Function::Sha1]);
        functions.learn(&Namespace::default(), Function::Sha256);
        assert_eq!(order(&functions, 64), [Function::Sha256, Function::Blake3]);
    }

    #[test]
    fn a_function_that_was_named_stays_what_it_is() {
        let functions = Functions::default();
        functions.learn(&Namespace::default(), Function::Blake3);
        for function in [Function::Sha256Tree, Function::GitSha1] {
            let hash = Hash::parse(function, &"0".repeat(function.hash_len() * 2)).unwrap();
            let readings = functions.readings(&Namespace::default(), &hash);
            assert!(readings.eq([hash]), "{function}");
        }
    }

    #[test]
    fn one_namespace_says_nothing_about_another() {
        let functions = Functions::default();
        functions.learn(&Namespace::new("other").unwrap(), Function::Blake3);
        assert_eq!(order(&functions, 64), [Function::Sha256, Function::Blake3]);
    }
}
