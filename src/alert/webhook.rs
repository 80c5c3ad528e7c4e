//! stub
pub struct Webhook;
impl Webhook {
    pub async fn send(&self, _: &super::Notice) -> Result<(), std::io::Error> {
        Ok(())
    }
    pub fn new(_: &crate::config::WebhookSettings) -> Result<Webhook, reqwest::Error> {
        Ok(Webhook)
    }
}
