/// What is spoken through a tunnel (wire §i.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The name in database resources and certificates.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// The name that makes the proxy hand a connection on.
    pub(crate) route: &'static str,
    /// The same, with keep-alive frames; `None` where there is no such form.
    pub(crate) framed: Option<&'static str>,
    /// TCP port that its clients use unless told otherwise.
    pub port: u16,
    /// Its clients cannot bring the certificate themselves: the tunnel has to (wire §i.2).
    pub only_authenticated: bool,
    pub(crate) talk: Talk,
}

/// What the tunnel itself understands of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    Postgres,
    Mysql,
    Mongo,
    Redis,
    SqlServer,
    /// An application.
    Http,
    /// HTTP under a database's protocol name.
    HttpDatabase,
    /// The client's own, whatever is inside.
    Tls,
    /// Bytes.
    Opaque,
}

const fn native(name: &'static str, title: &'static str, routes: [&'static str; 2], port: u16) -> Protocol {
    let [route, framed] = routes;
    let framed = Some(framed);
    Protocol { name, title, route, framed, port, only_authenticated: false, talk: Talk::Opaque }
}

const fn only_authenticated(protocol: Protocol) -> Protocol {
    Protocol { only_authenticated: true, ..protocol }
}

const fn talking(talk: Talk, protocol: Protocol) -> Protocol {
    Protocol { talk, ..protocol }
}

const POSTGRES: [&str; 2] = ["teleport-postgres", "teleport-postgres-ping"];
const CLICKHOUSE: [&str; 2] = ["teleport-clickhouse", "teleport-clickhouse-ping"];

const DATABASES: [Protocol; 14] = [
    talking(Talk::Postgres, native("postgres", "PostgreSQL", POSTGRES, 5432)),
    talking(Talk::Postgres, native("cockroachdb", "CockroachDB", POSTGRES, 26257)),
    talking(Talk::Mysql, native("mysql", "MySQL", ["teleport-mysql", "teleport-mysql-ping"], 3306)),
    talking(Talk::Mongo, native("mongodb", "MongoDB", ["teleport-mongodb", "teleport-mongodb-ping"], 27017)),
    only_authenticated(native("oracle", "Oracle", ["teleport-oracle", "teleport-oracle-ping"], 1521)),
    talking(Talk::Redis, native("redis", "Redis", ["teleport-redis", "teleport-redis-ping"], 6379)),
    talking(
        Talk::SqlServer,
        only_authenticated(native("sqlserver", "SQL Server", ["teleport-sqlserver", "teleport-sqlserver-ping"], 1433)),
    ),
    talking(
        Talk::HttpDatabase,
        only_authenticated(native("snowflake", "Snowflake", ["teleport-snowflake", "teleport-snowflake-ping"], 443)),
    ),
    only_authenticated(native("cassandra", "Cassandra", ["teleport-cassandra", "teleport-cassandra-ping"], 9042)),
    talking(
        Talk::HttpDatabase,
        native("elasticsearch", "Elasticsearch", ["teleport-elasticsearch", "teleport-elasticsearch-ping"], 9200),
    ),
    talking(
        Talk::HttpDatabase,
        native("opensearch", "OpenSearch", ["teleport-opensearch", "teleport-opensearch-ping"], 9200),
    ),
    talking(
        Talk::HttpDatabase,
        only_authenticated(native("dynamodb", "DynamoDB", ["teleport-dynamodb", "teleport-dynamodb-ping"], 443)),
    ),
    only_authenticated(native("clickhouse", "ClickHouse", CLICKHOUSE, 9440)),
    talking(Talk::HttpDatabase, only_authenticated(native("clickhouse-http", "ClickHouse (HTTP)", CLICKHOUSE, 8443))),
];

impl Protocol {
    /// An application that speaks HTTP.
    pub const HTTP: &Protocol = &Protocol {
        name: "http",
        title: "HTTP",
        route: "http/1.1",
        framed: None,
        port: 80,
        only_authenticated: true,
        talk: Talk::Http,
    };

    /// An application that speaks anything else.
    pub const TCP: &Protocol = &only_authenticated(native("tcp", "TCP", ["teleport-tcp", "teleport-tcp-ping"], 0));

    /// The protocol of a database resource.
    pub fn database(name: &str) -> Option<&'static Protocol> {
        const ALL: &[Protocol] = &DATABASES;
        ALL.iter().find(|protocol| protocol.name == name)
    }

    /// The protocol of an application resource, by its URI.
    pub fn application(uri: &str) -> &'static Protocol {
        if uri.starts_with("tcp://") { Self::TCP } else { Self::HTTP }
    }

    /// What to offer to the proxy, most wanted first.
    pub(crate) fn offers(&self) -> Vec<&'static str> {
        self.framed.into_iter().chain([self.route]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_framed_form_is_offered_first_and_http_has_none() {
        let cockroach = Protocol::database("cockroachdb").unwrap();
        assert_eq!(cockroach.offers(), ["teleport-postgres-ping", "teleport-postgres"]);
        assert_eq!(Protocol::application("http://localhost:3000").offers(), ["http/1.1"]);
        assert_eq!(Protocol::application("tcp://localhost:3000").offers(), ["teleport-tcp-ping", "teleport-tcp"]);
        assert!(Protocol::database("gopher").is_none());
        for protocol in &DATABASES {
            assert_eq!(protocol.framed, Some(format!("{}-ping", protocol.route).as_str()), "{}", protocol.name);
        }
    }
}
