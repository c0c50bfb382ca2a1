//! Starting what `peers` sections ask for.

use remora_config::plan::Plan;

/// Starts the exchange with the peers of every section that is not switched off.
///
/// # Errors
/// One message per section, as the exchange is not built in yet: a node that only believed to share its counts would be
/// worse than one that does not start.
pub(super) fn start(plan: &Plan) -> Result<(), Vec<String>> {
    let errors: Vec<String> = plan
        .peers
        .iter()
        .filter(|section| !section.disabled)
        .map(|section| {
            let file = plan.files.get(usize::from(section.place.file));
            format!(
                "[{}:{}] : peers section '{}' is valid, but the exchange between nodes is not built in yet: this node would count alone. 'disabled' in the section lets it.",
                file.map_or("?", String::as_str),
                section.place.line,
                section.name
            )
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}
