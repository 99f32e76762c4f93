//! One integration binary: real brokers, real database files, real clients, real browsers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs, reason = "tests")]

mod arrows;
mod bit_flips;
mod chaos;
mod checksums;
mod classical;
mod clock_jumps;
mod collecting;
#[cfg(feature = "tract")]
mod conformance;
mod custody_crash;
mod custody_faults;
mod custody_model;
mod custody_rot;
#[cfg(feature = "delegate-host")]
mod delegate;
mod delegate_faults;
mod delegate_fixture;
#[cfg(all(feature = "grpc", feature = "tract"))]
mod doc_commands;
mod e2e_access;
mod e2e_alerts;
mod e2e_clients;
mod e2e_cloud;
mod e2e_custody;
#[cfg(feature = "tract")]
mod e2e_delegate;
#[cfg(feature = "tract")]
mod e2e_demo;
mod e2e_disk;
mod e2e_exactly_once;
mod e2e_leases;
#[cfg(feature = "nats")]
mod e2e_letters;
mod e2e_messages;
#[cfg(feature = "tract")]
mod e2e_models;
mod e2e_payloads;
mod e2e_quota;
mod e2e_receipts;
mod e2e_requests;
mod e2e_salvage;
mod e2e_summaries;
mod fleet;
#[cfg(all(feature = "nats", feature = "postgres"))]
mod fleet_faults;
mod gateway;
#[cfg(feature = "transformer")]
mod generate;
mod history_model;
mod http_door;
mod http_fixture;
mod link_faults;
#[cfg(feature = "nats")]
mod link_kinds;
mod link_mqtt;
#[cfg(feature = "nats")]
mod link_nats;
mod link_pace;
mod link_sync;
mod llm_cable;
mod llm_check;
mod llm_clients;
mod llm_costs;
mod llm_day;
mod llm_door;
mod llm_faults;
mod llm_fixture;
mod llm_import;
mod llm_local;
mod llm_money;
mod llm_office;
mod llm_oip;
mod llm_routes;
mod llm_world;
mod log_file;
mod mock_provider;
#[cfg(feature = "tract")]
mod model_bench;
#[cfg(feature = "tract")]
mod models;
mod mosquitto;
mod mqtt_custody;
mod mqtt_exchange;
mod mqtt_fixture;
mod mqtt_hostile;
mod mqtt_transport;
#[cfg(feature = "nats")]
mod nats_server;
#[cfg(all(feature = "grpc", feature = "tract"))]
mod oip_clients;
#[cfg(all(feature = "grpc", feature = "tract"))]
mod oip_mistakes;
#[cfg(all(feature = "grpc", feature = "tract"))]
mod oip_tls;
#[cfg(feature = "tract")]
mod openapi;
mod outbox_model;
mod page_chromium;
mod pipelines;
mod pipelines_fixture;
mod pipelines_http;
mod pipelines_streams;
mod pipelines_traffic;
#[cfg(feature = "postgres")]
mod postgres;
mod predict;
mod promise;
mod provider;
mod provider_faults;
mod provider_fixture;
#[cfg(feature = "tract")]
mod quantise;
mod quota_model;
mod salvage;
mod serving;
mod sketches;
mod startup;
mod store_faults;
mod three_weeks;
mod traffic;
mod traffic_fixture;
mod traffic_http;
// Its cases are pictures, sounds and texts together.
#[cfg(all(feature = "image", feature = "text"))]
mod transform;
#[cfg(all(feature = "transformer", feature = "text"))]
mod transformer;
#[cfg(all(feature = "grpc", feature = "tract"))]
mod triton_config;
mod upgrade;
#[cfg(feature = "postgres")]
mod warehouse;
mod webdriver;
mod write_cost;
