pub mod validate {
    use osc_api::Resource;
    use osc_schema::Cause;
    use serde_json::Value;
    pub fn create(_: &Resource, _: &Value) -> Vec<Cause> {
        Vec::new()
    }
    pub fn update(_: &Resource, _: &Value, _: &Value, _: &str) -> Vec<Cause> {
        Vec::new()
    }
}
