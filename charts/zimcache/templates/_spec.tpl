{{/*
The spec of this release's ZimCache: what the convenience values and bundled parts say, then zimcache.spec over it.
What nobody said stays out, so that defaults are the CRD's and other hands (kubectl scale) keep what they set.
*/}}
{{- define "zimcache.spec" -}}
{{- $values := .Values.zimcache -}}
{{- $spec := dict "imagePullPolicy" .Values.image.pullPolicy -}}
{{- with .Values.global.imagePullSecrets -}}
{{- $_ := set $spec "imagePullSecrets" . -}}
{{- end -}}
{{- with include "zimcache.spec.nodes" . | fromYaml -}}
{{- $_ := set $spec "nodes" . -}}
{{- end -}}
{{- with include "zimcache.spec.auth" . | fromYaml -}}
{{- $_ := set $spec "auth" . -}}
{{- end -}}
{{- if .Values.s3.enabled -}}
{{- $_ := set $spec "durableTier" (include "zimcache.spec.durableTier" . | fromYaml) -}}
{{- end -}}
{{- if .Values.redis.enabled -}}
{{- $_ := set $spec "rateLimits" (include "zimcache.spec.rateLimits" . | fromYaml) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $spec (deepCopy $values.spec)) -}}
{{- end -}}

{{- define "zimcache.spec.nodes" -}}
{{- $values := .Values.zimcache -}}
{{- if not (kindIs "invalid" $values.replicas) }}
replicas: {{ $values.replicas }}
{{- end }}
{{- if or $values.storage.size $values.storage.storageClassName }}
storage:
  {{- with $values.storage.size }}
  size: {{ . }}
  {{- end }}
  {{- with $values.storage.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "zimcache.spec.auth" -}}
{{- with .Values.zimcache.auth.anonymous }}
anonymous: {{ . }}
{{- end }}
{{- with .Values.zimcache.auth.tokens.existingSecret }}
tokens:
  existingSecret:
    name: {{ . }}
    key: {{ $.Values.zimcache.auth.tokens.key }}
{{- end }}
{{- end -}}

{{- define "zimcache.spec.durableTier" -}}
s3:
  bucket: {{ .Values.s3.bucket }}
  region: us-east-1
  endpoint: http://{{ include "zimcache.s3.name" . }}.{{ .Release.Namespace }}.svc:7070
  pathStyle: true
  createBucket: true
  existingSecret:
    name: {{ include "zimcache.s3.secretName" . }}
    accessKeyIdKey: {{ .Values.s3.auth.accessKeyIdKey }}
    secretAccessKeyKey: {{ .Values.s3.auth.secretAccessKeyKey }}
{{- end -}}

{{- define "zimcache.spec.rateLimits" -}}
redis:
  existingSecret:
    name: {{ include "zimcache.redis.secretName" . }}
    key: {{ .Values.redis.auth.urlKey }}
{{- end -}}
