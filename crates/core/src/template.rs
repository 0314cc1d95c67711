//! The templates of this crate: well-formed, and complete with everything that they include.

use tera::{Context, Tera};

pub(crate) fn render(template: &str, context: &Context) -> String {
    let mut tera = Tera::new();
    tera.add_raw_template("template", template)
        .expect("our templates are well-formed");
    tera.render("template", context)
        .expect("our templates use only what the context has")
}
