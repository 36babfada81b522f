{{/* How a target is asked, the same in ServiceMonitors and PodMonitors: dict of values and port. */}}
{{- define "zimcache.endpoint" -}}
port: {{ .port }}
path: /metrics
{{- with .values.interval }}
interval: {{ . }}
{{- end }}
{{- with .values.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .values.relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Gateways and nodes, of whatever ZimCache. */}}
{{- define "zimcache.cachePods" -}}
matchLabels:
  app.kubernetes.io/name: zimcache
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values: [gateway, node]
{{- end -}}
