package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

func newInspect() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] CONTAINER...",
		Short: "Print all about containers, in the shape of docker inspect",
		Example: `  fairlead inspect web
  fairlead inspect --format '{{.NetworkSettings.IPAddress}}' web
  fairlead inspect -f '{{json .State}}' web`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inspectAll(cmd, args, format, func(name string, into *api.Inspect) error {
				return client().Get(cmd.Context(), containerPath(name), into)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Print by a Go `TEMPLATE`; functions: json join split lower upper")
	return cmd
}

// inspectAll prints what get finds by each name: as an array, also when it is
// empty, or by a template.
func inspectAll[T any](cmd *cobra.Command, names []string, format string, get func(name string, into *T) error) error {
	tmpl, err := parseFormat(short(cmd), format)
	if err != nil {
		return err
	}
	found, named := []*T{}, []string{}
	err = forEach(names, func(name string) error {
		x := new(T)
		err := get(name, x)
		if err == nil {
			found, named = append(found, x), append(named, name)
		}
		return err
	})
	if format == "" {
		printInspect(cmd.OutOrStdout(), found)
		return err
	}
	for i, x := range found {
		if err := printFormat(cmd.OutOrStdout(), tmpl, x); err != nil {
			return fmt.Errorf("%s: template parsing error: %w; `%s %s` prints the fields", short(cmd), err, cmd.CommandPath(), named[i])
		}
	}
	return err
}

// printInspect prints the array docker inspect prints, also when it is empty.
func printInspect[T any](out io.Writer, found []*T) {
	e := json.NewEncoder(out)
	e.SetIndent("", "    ")
	e.SetEscapeHTML(false)
	_ = e.Encode(found) // of our own types: only the writer can fail
}

func parseFormat(command, format string) (*template.Template, error) {
	t, err := template.New("format").Option("missingkey=error").Funcs(template.FuncMap{
		"json": toJSON, "join": strings.Join, "split": strings.Split, "lower": strings.ToLower, "upper": strings.ToUpper,
	}).Parse(format)
	if err != nil {
		return nil, fmt.Errorf("%s: template parsing error: %w", command, err)
	}
	return t, nil
}

func toJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// printFormat fills in tmpl with c: its fields as Go has them, else as the
// JSON names them ({{.Id}}), as Docker does.
func printFormat(out io.Writer, tmpl *template.Template, c any) error {
	var b bytes.Buffer
	err := tmpl.Execute(&b, c)
	if err != nil {
		var raw map[string]any
		data, _ := json.Marshal(c)
		_ = json.Unmarshal(data, &raw)
		b.Reset()
		if tmpl.Execute(&b, raw) != nil { // the first error names our fields
			return err
		}
	}
	_, err = fmt.Fprintln(out, b.String())
	return err
}
