package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"noroshi/internal/asnames"
)

// lookup returns the key that is looked up for an address column.
func (l Layout) lookup(column, part string) (key, bool) {
	get := func(attribute, none string) string {
		return fmt.Sprintf("dictGetOrDefault(%s, '%s', %s, %s)", text(l.Database+".names"), attribute, column, none)
	}
	switch part {
	case "as":
		return key{expr: get("asn", "toUInt32(0)"), op: op32}, true
	case "as_name":
		return key{expr: get("name", "''"), op: opText}, true
	case "country":
		return key{expr: get("country", "''"), op: opText}, true
	}
	return key{}, false
}

// text makes a literal of a name of our own.
func text(s string) string {
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(s) + "'"
}

// names returns the statements that create what LoadNames needs. Every node has
// all names: in a cluster the table is one replica set over all shards.
func (l Layout) names() []string {
	engine := "MergeTree"
	if l.Cluster != "" {
		engine = "ReplicatedMergeTree('/clickhouse/tables/{uuid}/all', '{shard}-{replica}')"
	}
	table := func(name string) string {
		return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s (prefix String, asn UInt32, name String, country String) ENGINE = %s ORDER BY prefix", l.all(name), l.on(), engine)
	}
	return []string{
		"CREATE DATABASE IF NOT EXISTS " + quote(l.Database) + l.on(),
		table("prefixes"), table("prefixes_new"),
		fmt.Sprintf("CREATE DICTIONARY IF NOT EXISTS %s%s (prefix String, asn UInt32 DEFAULT 0, name String DEFAULT '', country String DEFAULT '') PRIMARY KEY prefix SOURCE(CLICKHOUSE(DB %s TABLE 'prefixes')) LAYOUT(IP_TRIE) LIFETIME(MIN 300 MAX 600)",
			l.all("names"), l.on(), text(l.Database)),
	}
}

// LoadNames replaces the names by which addresses are grouped (src.as,
// src.as_name, src.country) and returns how many prefixes there are. Until it
// returns the old ones are in use; in a cluster other nodes follow within ten
// minutes.
func (c *Client) LoadNames(ctx context.Context, l Layout, entries iter.Seq[asnames.Entry]) (int, error) {
	for _, sql := range append(l.names(), "TRUNCATE TABLE "+l.all("prefixes_new")+l.on()) {
		if err := c.exec(ctx, sql, nil); err != nil {
			return 0, err
		}
	}
	var prefix, asn, name, country, block []byte
	n, rows := 0, 0
	flush := func() error {
		block = appendBlock(block[:0], 4, rows)
		block = appendColumn(block, "prefix", "String", prefix)
		block = appendColumn(block, "asn", "UInt32", asn)
		block = appendColumn(block, "name", "String", name)
		block = appendColumn(block, "country", "String", country)
		prefix, asn, name, country, rows = prefix[:0], asn[:0], name[:0], country[:0], 0
		return c.insert(ctx, "INSERT INTO "+l.all("prefixes_new")+" (prefix, asn, name, country) SETTINGS async_insert = 0 FORMAT Native", block)
	}
	for e := range entries {
		prefix = appendString(prefix, e.Prefix.String())
		asn = binary.LittleEndian.AppendUint32(asn, e.ASN)
		name, country = appendString(name, e.Name), appendString(country, e.Country)
		n++
		if rows++; rows == 100_000 {
			if err := flush(); err != nil {
				return 0, err
			}
		}
	}
	if rows > 0 {
		if err := flush(); err != nil {
			return 0, err
		}
	}
	for _, sql := range []string{
		"EXCHANGE TABLES " + l.all("prefixes") + " AND " + l.all("prefixes_new") + l.on(),
		"SYSTEM RELOAD DICTIONARY " + l.all("names") + l.on(),
		"TRUNCATE TABLE " + l.all("prefixes_new") + l.on(),
	} {
		// ON CLUSTER stands before the name of a dictionary.
		if l.Cluster != "" && strings.HasPrefix(sql, "SYSTEM") {
			sql = "SYSTEM RELOAD DICTIONARY" + l.on() + " " + l.all("names")
		}
		if err := c.exec(ctx, sql, nil); err != nil {
			return 0, err
		}
	}
	return n, nil
}
