//! The packed templates: complete, in four languages.

use std::collections::BTreeMap;

use buildbot_conda_package_tests::Package;

const LANGUAGES: [&str; 3] = ["de", "es", "fr"];

/// The paragraphs of the templates: the first line of each field by the field's name, and how many paragraphs of text
/// follow it.
fn templates() -> Vec<BTreeMap<String, (String, usize)>> {
    let text = Package::open().text("DEBIAN/templates");
    text.split("\n\n")
        .map(|template| {
            let mut fields = BTreeMap::new();
            let mut last = String::new();
            for line in template.lines().filter(|line| !line.starts_with('#')) {
                if line.starts_with(' ') {
                    let (_, paragraphs): &mut (String, usize) =
                        fields.get_mut(&last).expect("text follows its field");
                    *paragraphs += usize::from(*paragraphs == 0 || line == " .");
                } else {
                    let (name, value) = line.split_once(": ").expect("a field has a value");
                    name.clone_into(&mut last);
                    fields.insert(last.clone(), (value.to_owned(), 0));
                }
            }
            fields
        })
        .collect()
}

#[test]
fn every_text_is_there_in_every_language() {
    for template in templates() {
        let name = &template["Template"].0;
        for (field, (english, paragraphs)) in &template {
            assert!(!field.starts_with('_'), "{name}: {field} is not merged");
            if !["Description", "Choices"].contains(&field.as_str()) {
                continue;
            }
            for language in LANGUAGES {
                let translated = template
                    .get(&format!("{field}-{language}.UTF-8"))
                    .unwrap_or_else(|| panic!("{name} has no {field} in {language}"));
                assert_ne!(&translated.0, english, "{name}: {field} in {language}");
                assert_eq!(translated.1, *paragraphs, "{name}: {field} in {language}");
            }
        }
    }
}

#[test]
fn choices_have_names_that_no_language_changes() {
    let services = templates()
        .into_iter()
        .find(|template| template["Template"].0 == "buildbot-conda/services")
        .expect("there is a question about services");
    assert_eq!(services["Choices-C"].0, "master, worker");
    for (field, (value, _)) in &services {
        if field.starts_with("Choices") {
            assert_eq!(value.split(", ").count(), 2, "{field}: {value}");
        }
    }
}

#[test]
fn prompts_end_as_debconf_wants_them() {
    for template in templates() {
        let kind = template["Type"].0.as_str();
        for (field, (prompt, _)) in &template {
            if field.starts_with("Description") {
                let is_question = kind != "error";
                assert_eq!(prompt.ends_with(':'), is_question, "{prompt}");
                assert!(!prompt.ends_with(['.', '?']), "{prompt}");
            }
        }
    }
}
