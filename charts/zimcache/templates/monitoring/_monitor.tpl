{{/*
How a target is asked, the same in ServiceMonitors and PodMonitors: dict of values, port, and job where it has a fixed one.
Dashboards and alerts take a job for a whole cache, gateways and nodes; an instance is a pod, whatever its address.
*/}}
{{- define "zimcache.endpoint" -}}
port: {{ .port }}
path: /metrics
{{- if not .job }}
# A label `namespace` of theirs is a namespace of the cache.
honorLabels: true
{{- end }}
{{- with .values.interval }}
interval: {{ . }}
{{- end }}
{{- with .values.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
relabelings:
  {{- if .job }}
  - targetLabel: job
    replacement: {{ .job }}
  {{- else }}
  - sourceLabels: [__meta_kubernetes_namespace, __meta_kubernetes_pod_label_app_kubernetes_io_instance]
    separator: /
    targetLabel: job
  {{- end }}
  - sourceLabels: [__meta_kubernetes_pod_name]
    targetLabel: instance
  {{- with .values.relabelings }}
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
