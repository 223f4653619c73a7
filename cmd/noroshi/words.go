package main

import (
	"strings"

	"noroshi/finding"
)

// Words that findings carry as keys, in Japanese. What is missing here is shown
// as it is.
var (
	rolesJa = map[string]string{
		"bot": "ボット", "victim": "標的", "scanner": "スキャン元", "reflector": "リフレクター", "source": "送信元", "sender": "送信元",
		"receiver": "スキャン結果受信サーバー", "loader": "ローダー", "c2": "C&Cサーバー", "exporter": "エクスポーター",
	}
	unitsJa = map[string]string{
		"packets/s": "パケット/秒", "bits/s": "bps", "addresses": "アドレス", "octets": "バイト", "packets": "パケット", "share": "(割合)", "SYNs": "個",
		"hosts": "台", "devices": "台", "ports": "ポート", "reports": "件", "commands": "件", "findings": "件", "floods": "件", "s": "秒",
		"powers of ten": "桁(10のべき)", "sampling rate": "",
	}
	severitiesJa = map[finding.Severity]string{
		finding.Critical: "緊急", finding.High: "高", finding.Medium: "中", finding.Low: "低", finding.Informational: "情報",
	}
)

// word returns key in the language.
func (l language) word(key string, ja map[string]string) string {
	if w, known := ja[key]; known && l == "ja" {
		return w
	}
	return key
}

// severity returns the word for s.
func (l language) severity(s finding.Severity) string {
	if l == "ja" {
		return severitiesJa[s]
	}
	return strings.ToUpper(s.String())
}
