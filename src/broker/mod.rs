//! The broker behind the MQTT door: topic tree, sessions, retained messages, wills, shared subscriptions.
