// Parses alerting rules and PromQL as Prometheus does, and says which series each expression reads.
//
// In, as JSON: {"rules": "text of a rules file", "expressions": {"where": "PromQL"}}. Out, as JSON:
// {"problems": ["…"], "series": {"where": ["name"]}}; the rules are known by their names.
package main

import (
	"encoding/json"
	"log"
	"log/slog"
	"os"
	"regexp/syntax"
	"strings"

	// The types of the operator's custom resources: their definitions are made of this package.
	_ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

type question struct {
	Rules       string            `json:"rules"`
	Expressions map[string]string `json:"expressions"`
}

type answer struct {
	Problems []string            `json:"problems"`
	Series   map[string][]string `json:"series"`
}

func main() {
	var asked question
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		log.Fatalf("read the question: %v", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(check(asked)); err != nil {
		log.Fatalf("write the answer: %v", err)
	}
}

func check(asked question) answer {
	promql := parser.NewParser(parser.Options{})
	found := answer{Problems: []string{}, Series: map[string][]string{}}
	expressions := map[string]string{}
	for where, text := range asked.Expressions {
		expressions[where] = text
	}
	groups, errs := rulefmt.Parse([]byte(asked.Rules), false, model.LegacyValidation, promql, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		found.Problems = append(found.Problems, err.Error())
	}
	if groups != nil && len(errs) == 0 {
		for _, group := range groups.Groups {
			for _, rule := range group.Rules {
				expressions[rule.Alert+rule.Record] = rule.Expr
			}
		}
	}
	for where, text := range expressions {
		tree, err := promql.ParseExpr(text)
		if err != nil {
			found.Problems = append(found.Problems, where+": "+err.Error())
			continue
		}
		found.Series[where] = series(tree)
	}
	return found
}

// The names of the series that an expression selects.
func series(tree parser.Expr) []string {
	names := []string{}
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			names = append(names, selected(selector)...)
		}
		return nil
	})
	return names
}

func selected(selector *parser.VectorSelector) []string {
	for _, matcher := range selector.LabelMatchers {
		if matcher.Name != labels.MetricName {
			continue
		}
		if matcher.Type == labels.MatchEqual {
			return []string{matcher.Value}
		}
		if matcher.Type == labels.MatchRegexp && plain(matcher.Value) {
			return strings.Split(matcher.Value, "|")
		}
	}
	// Nobody can say which these are: no program has a series of this name.
	return []string{selector.String()}
}

// Whether a pattern is nothing but names with | between them.
func plain(pattern string) bool {
	for _, name := range strings.Split(pattern, "|") {
		if parsed, err := syntax.Parse(name, syntax.Perl); err != nil || parsed.Op != syntax.OpLiteral {
			return false
		}
	}
	return true
}
