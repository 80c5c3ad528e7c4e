//! stub main
use apipayd::config::{Environment, Settings, Sources};
fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let environment = Environment::of_process();
    let file = std::env::args()
        .skip_while(|a| a != "--config")
        .nth(1)
        .map(Into::into);
    let s = Settings::read(&Sources {
        file,
        environment: environment.clone(),
    })
    .and_then(|s| s.load_keys(&environment))
    .expect("settings");
    let rt = tokio::runtime::Runtime::new().expect("rt");
    if std::env::args().any(|a| a == "migrate") {
        rt.block_on(async { apipayd::db::migrate::migrate(&s.connect().pool()).await })
            .expect("migrate");
        return;
    }
    rt.block_on(apipayd::app::run(s)).expect("run");
}
