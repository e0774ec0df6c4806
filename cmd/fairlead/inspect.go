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
			tmpl, err := parseFormat(format)
			if err != nil {
				return err
			}
			found := []*api.Inspect{}
			err = forEach(args, func(name string) error {
				c := new(api.Inspect)
				err := client().Get(cmd.Context(), containerPath(name), c)
				if err == nil {
					found = append(found, c)
				}
				return err
			})
			if format == "" {
				printInspect(cmd.OutOrStdout(), found)
				return err
			}
			for _, c := range found {
				if err := printFormat(cmd.OutOrStdout(), tmpl, c); err != nil {
					return err
				}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Print by a Go `TEMPLATE`; functions: json join split lower upper")
	return cmd
}

// printInspect prints the array docker inspect prints, also when it is empty.
func printInspect(out io.Writer, found []*api.Inspect) {
	e := json.NewEncoder(out)
	e.SetIndent("", "    ")
	e.SetEscapeHTML(false)
	_ = e.Encode(found) // of our own types: only the writer can fail
}

func parseFormat(format string) (*template.Template, error) {
	t, err := template.New("format").Option("missingkey=error").Funcs(template.FuncMap{
		"json": toJSON, "join": strings.Join, "split": strings.Split, "lower": strings.ToLower, "upper": strings.ToUpper,
	}).Parse(format)
	if err != nil {
		return nil, fmt.Errorf("inspect: template parsing error: %w", err)
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
func printFormat(out io.Writer, tmpl *template.Template, c *api.Inspect) error {
	var b bytes.Buffer
	err := tmpl.Execute(&b, c)
	if err != nil {
		var raw map[string]any
		data, _ := json.Marshal(c)
		_ = json.Unmarshal(data, &raw)
		b.Reset()
		if tmpl.Execute(&b, raw) != nil { // the first error names our fields
			return fmt.Errorf("inspect: template parsing error: %w; `fairlead inspect %s` prints the fields", err, strings.TrimPrefix(c.Name, "/"))
		}
	}
	_, err = fmt.Fprintln(out, b.String())
	return err
}
