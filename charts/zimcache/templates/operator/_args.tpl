{{/* Flags of `zim-operator`. */}}
{{- define "zimcache.operator.args" -}}
- run
- --default-image={{ include "zimcache.image" (list . .Values.image) }}
- --listen=0.0.0.0:8081
- --log-level={{ .Values.operator.logLevel }}
- --lease={{ include "zimcache.operator.name" . }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- if not .Values.crds.manage }}
- --no-manage-crds
{{- end }}
{{- range .Values.operator.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}
