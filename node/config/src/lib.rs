//! Remora's configuration: text -> syntax tree with spans -> compiled [`plan::Plan`].
//!
//! Opens no files and resolves no names: the shell passes file contents and a [`Loader`] for what a configuration
//! refers to.

mod address;
mod addresses;
pub mod ast;
mod checks;
mod compile;
pub mod condition;
pub mod diag;
pub mod env;
pub mod expr;
mod global;
pub mod known;
pub mod lexer;
mod listen;
mod logs;
mod names;
mod parse;
mod peers;
pub mod plan;
mod proxy;
pub mod rules;
mod rulesets;
pub mod scope;
mod servers;
mod table;
pub mod values;

use diag::{Diags, Level};

/// What compiling a configuration asks of the outside world.
pub trait Loader {
    /// Contents of a file that the configuration names (`errorfile`, `-f` pattern files), relative to the working
    /// directory. [`scope::Scope::read`] also looks beside the configuration file.
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String>;
    /// The same for a file that the running process reads again by itself whenever it has changed.
    fn read_renewed(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.read(path)
    }
    /// Resolves a host name to an address (server lines, ACL `src` values); honours `-dr` and `-n` outside. An empty list
    /// means "not resolvable, and that is no error" (`-dr`): a server stays, disabled.
    fn resolve(&mut self, name: &str) -> Result<Vec<std::net::IpAddr>, String>;
    /// An environment variable.
    fn env(&self, name: &str) -> Option<String>;
}

/// One configuration file: its name as given on the command line and its bytes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Source {
    pub name: String,
    pub text: Vec<u8>,
}

/// Everything outside the files that the result depends on.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Options {
    pub hostname: String,
    pub localpeer: Option<String>,
    pub cpus: u16,
    pub fd_limit: u64,
    /// `-n`
    pub maxconn: Option<u32>,
    pub pid: u32,
}

/// Parses and compiles. All messages, warnings too, are in `diags`; `plan` is there unless one of them is an alert.
pub fn load(sources: &[Source], options: &Options, loader: &mut dyn Loader) -> Loaded {
    let mut diags = Diags::default();
    let mut env = env::Env::predefined(sources, options);
    let sections = parse::parse(sources, &mut env, loader, &mut diags);
    let plan = compile::compile(&sections, env, options, loader, &mut diags);
    let plan = plan.filter(|_| !diags.any(Level::Alert));
    let failed: Vec<&str> = (0u16..)
        .zip(sources)
        .filter(|(i, _)| diags.file_failed(*i))
        .map(|(_, s)| s.name.as_str())
        .collect();
    if plan.is_none() {
        for name in failed {
            let text = format!("Error(s) found in configuration file : {name}");
            diags.push_global(Level::Alert, &text);
        }
        diags.push_global(Level::Alert, "Fatal errors found in configuration.");
    }
    Loaded {
        plan,
        diags: diags.into_list(),
    }
}

/// The argument of `-S`: an address and options of `stats socket`, separated by commas. Rights are admin's and the mode is
/// 700 unless it says otherwise.
///
/// # Errors
/// A message.
pub fn master_socket(text: &str, loader: &mut dyn Loader) -> Result<plan::StatsSocket, String> {
    let words: Vec<lexer::Word> = text.split(',').map(lexer::Word::new).collect();
    let place = plan::Place { file: 0, line: 0 };
    let mut socket = listen::stats_socket(&words, place, loader)?;
    if !words.iter().any(|w| *w == "level") {
        socket.level = plan::CliLevel::Admin;
    }
    socket.mode.get_or_insert(0o700);
    Ok(socket)
}

/// The UNIX sockets of `admin bind` lines, in order, without compiling the rest: for probes, which run every few seconds.
/// Gives the messages of a file that cannot be read so far.
pub fn admin_sockets(
    sources: &[Source],
    options: &Options,
    loader: &mut dyn Loader,
) -> Result<Vec<String>, Vec<diag::Diag>> {
    let mut diags = Diags::default();
    let mut env = env::Env::predefined(sources, options);
    let sections = parse::parse(sources, &mut env, loader, &mut diags);
    let mut paths = Vec::new();
    for s in sections
        .iter()
        .filter(|section| section.kind == ast::SectionKind::Global)
        .flat_map(|section| &section.statements)
        .filter(|s| s.keyword() == "admin" && s.arg(0) == "bind")
    {
        let args = s.args().get(1..).unwrap_or_default();
        match listen::admin_bind(args, s.place, loader) {
            Ok(socket) => {
                if let plan::Address::Unix(path) = socket.address {
                    paths.push(path);
                }
            }
            Err(text) => diags.alert(s.place, &text),
        }
    }
    if diags.any(Level::Alert) {
        return Err(diags.into_list());
    }
    Ok(paths)
}

/// Evaluates a condition for `-cc`. `env` answers for environment variables; the error is the whole message.
pub fn eval_condition(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<bool, String> {
    condition::evaluate(text, &|name| env(name).is_some())
        .map_err(|e| format!("config : Failed to evaluate condition: {}", e.text))
}

/// Result of [`load`].
#[allow(missing_docs)]
pub struct Loaded {
    pub plan: Option<plan::Plan>,
    pub diags: Vec<diag::Diag>,
}
