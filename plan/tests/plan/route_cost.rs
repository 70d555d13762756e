//! What it costs to find one of five thousand routes: nothing allocated, and not many instructions. Counted, since times depend
//! on what else the machine does.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::RouteMatch;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use http::HeaderMap;
use orlop_plan::resource::route::RouteConfiguration;
use orlop_plan::route_match::RequestHead;

use crate::build::{prefix, route_configuration, route_to, virtual_host};
use crate::route_matching::accepted;

const ROUTES: usize = 5000;
/// The last but the one for everything.
const PATH: &str = "/team-49/service-99/items/7?page=2";
/// More than three times what is needed, so that compilers may differ, and a fiftieth of what asking one route after another
/// takes.
const MOST_INSTRUCTIONS: u64 = 6000;
const SEARCHES: &str = "ORLOP_TEST_SEARCHES";

/// Half of them for a prefix, half for one path, all in one virtual host.
fn many_routes() -> Arc<RouteConfiguration> {
    let routes = (0..ROUTES - 1).map(|number| {
        let path = format!("/team-{}/service-{}", number / 100, number % 100);
        let mut route = route_to("a");
        route.name.clone_from(&path);
        route.r#match = Some(match number % 2 {
            1 => prefix(&format!("{path}/")),
            _ => RouteMatch { path_specifier: Some(PathSpecifier::Path(path)), ..RouteMatch::default() },
        });
        route
    });
    let routes = routes.chain([route_to("a")]).collect();
    accepted(route_configuration("r", vec![virtual_host("h", &["*"], routes)]))
}

fn head<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    RequestHead { method: "GET", path_and_query: path, authority: "shop.example:80", scheme: "http", headers }
}

fn route_of<'a>(routes: &'a RouteConfiguration, path: &str) -> &'a str {
    &routes.select(&head(path, &HeaderMap::new()), 0).unwrap().route.name
}

#[test]
fn nothing_is_allocated() {
    let routes = many_routes();
    let mut headers = HeaderMap::new();
    headers.insert("x-user", "someone".parse().unwrap());

    let counted = allocation_counter::measure(|| {
        for path in [PATH, "/team-49/service-98", "/nobody", "/"] {
            black_box(routes.select(&head(path, &headers), 0).unwrap());
        }
    });

    assert_eq!(counted.count_total, 0);
    assert_eq!(route_of(&routes, "/team-49/service-97/items"), "/team-49/service-97");
    assert_eq!(route_of(&routes, "/team-49/service-98"), "/team-49/service-98");
    assert_eq!(route_of(&routes, PATH), "default");
}

#[test]
fn few_instructions_are_needed() {
    let (few, many) = (200, 1200);
    let each = (instructions(many) - instructions(few)) / (many - few);

    assert!(each < MOST_INSTRUCTIONS, "{each} instructions for a search");
}

/// Instructions of this program with so many searches in it.
fn instructions(searches: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "route_cost::searches_to_be_counted", "--ignored"])
        .env(SEARCHES, searches.to_string())
        .output()
        .unwrap_or_else(|error| panic!("valgrind counts instructions, but does not run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // "==123== Collected : 4567"
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).unwrap();
    collected.1.trim().parse().unwrap()
}

#[test]
#[ignore = "another test counts its instructions"]
fn searches_to_be_counted() {
    let searches: u64 = std::env::var(SEARCHES).unwrap().parse().unwrap();
    let (routes, headers) = (many_routes(), HeaderMap::new());
    for _ in 0..searches {
        black_box(routes.select(&head(black_box(PATH), &headers), 0).unwrap());
    }
}
