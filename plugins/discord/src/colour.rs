//! The colour at the embed's edge, by the kind of event.

/// The kind of an event is the last word of its type.
pub fn of(event_type: &str) -> u32 {
    const GREEN: u32 = 0x2e_cc_71;
    const BLUE: u32 = 0x34_98_db;
    const GREY: u32 = 0x95_a5_a6;
    const ORANGE: u32 = 0xe6_7e_22;
    const RED: u32 = 0xe7_4c_3c;
    match event_type.rsplit('.').next().unwrap_or_default() {
        "created" | "completed" | "succeeded" => GREEN,
        "deleted" | "cancelled" => GREY,
        "refunded" => ORANGE,
        "failed" => RED,
        _ => BLUE,
    }
}
