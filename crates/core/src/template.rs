//! Files from templates that this crate has: well-formed, and with all that they use.

use tera::{Context, Tera};

pub(crate) fn render(template: &str, context: &Context) -> String {
    let mut tera = Tera::new();
    tera.add_raw_template("template", template)
        .expect("our templates are well-formed");
    tera.render("template", context)
        .expect("our templates use only what the context has")
}
