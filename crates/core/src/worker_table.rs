//! The table of workers beside a starter `master.cfg`: `workers.toml`, in which every worker has a table of its name.
//! Names go in and out of it, and everything else stays. The passwords are not in it.

use toml_edit::DocumentMut;

use crate::edit::remove_table;
use crate::starter::WorkerName;

/// Such a file.
#[derive(Debug, Clone)]
pub struct WorkerTable<'a> {
    text: &'a str,
    document: DocumentMut,
}

/// Reads a `workers.toml`; none where it is not one, which is for its owner to mend.
pub fn read(text: &str) -> Option<WorkerTable<'_>> {
    let document: DocumentMut = text.parse().ok()?;
    let are_tables = document.iter().all(|(_, item)| item.is_table_like());
    are_tables.then_some(WorkerTable { text, document })
}

impl WorkerTable<'_> {
    /// Whether a worker is there.
    pub fn contains(&self, name: &str) -> bool {
        self.document.contains_key(name)
    }

    /// The text with one more worker, at the end. `slots` is how many builds it runs at a time.
    pub fn with(&self, name: &WorkerName, slots: Option<u32>) -> String {
        let line = if self.text.is_empty() || self.text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let slots = slots.map_or_else(String::new, |slots| format!("slots = {slots}\n"));
        format!("{}{line}[{}]\n{slots}", self.text, name.as_str())
    }

    /// The text without a worker; none where it is not there, or is the only one: Buildbot takes no builder without a
    /// worker.
    pub fn without(&self, name: &str) -> Option<String> {
        if self.document.len() == 1 || !self.contains(name) {
            return None;
        }
        let mut document = self.document.clone();
        remove_table(&mut document, name);
        Some(document.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n\n[worker]\n\n# the fast one\n[gpu]\nslots = 2\n[gpu.properties]\nos = \"linux\"\n";

    #[test]
    fn workers_go_in_and_out_and_the_rest_stays() {
        let table = read(TEXT).unwrap();
        assert!(table.contains("worker") && table.contains("gpu") && !table.contains("new"));
        let more = table.with(&"new".parse().unwrap(), None);
        assert_eq!(more, format!("{TEXT}[new]\n"));
        assert_eq!(read(&more).unwrap().without("new").unwrap(), TEXT);
        let less = read(&more).unwrap().without("gpu").unwrap();
        assert_eq!(less, "# mine\n\n[worker]\n[new]\n");
        let less = table.without("worker").unwrap();
        assert_eq!(less, TEXT.replace("[worker]\n\n", ""));
        assert_eq!(table.without("new"), None);
    }

    #[test]
    fn the_last_worker_stays_and_an_empty_file_can_be_filled() {
        assert_eq!(read("[a]\n").unwrap().without("a"), None);
        assert_eq!(
            read("").unwrap().with(&"a".parse().unwrap(), Some(2)),
            "[a]\nslots = 2\n"
        );
        let text = read("[a]").unwrap().with(&"b".parse().unwrap(), None);
        assert_eq!(text, "[a]\n[b]\n");
    }

    #[test]
    fn what_is_no_table_of_workers_is_not_understood() {
        for text in ["a = 1\n", "[a\n", "WORKERS = [\"a\"]\n", "[[a]]\n"] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn that_of_a_new_master_is_one() {
        let text = crate::starter::worker_table(&"worker".parse().unwrap());
        let table = read(&text).unwrap();
        assert!(table.contains("worker") && table.document.len() == 1);
    }
}
