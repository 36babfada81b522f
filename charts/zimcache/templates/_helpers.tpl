{{/*
Names, labels and images of this chart.
*/}}

{{/* The release's name in names of objects; 40 characters leave room for what is appended. */}}
{{- define "zimcache.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "zimcache.operator.name" -}}
{{- include "zimcache.fullname" . }}-operator
{{- end -}}

{{- define "zimcache.redis.name" -}}
{{- include "zimcache.fullname" . }}-redis
{{- end -}}

{{- define "zimcache.s3.name" -}}
{{- include "zimcache.fullname" . }}-s3
{{- end -}}

{{/* Objects of the whole cluster: two releases of one name in two namespaces must not meet. */}}
{{- define "zimcache.operator.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "zimcache.operator.name" .) -}}
{{- end -}}

{{- define "zimcache.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "zimcache.operator.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* What a component's pods are selected by: list of context and component. */}}
{{- define "zimcache.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: zimcache
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object: list of context and component. */}}
{{- define "zimcache.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "zimcache.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: zimcache
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.global.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a component's pods: nothing that changes with the chart, or every upgrade would restart them. */}}
{{- define "zimcache.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "zimcache.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.global.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata from labels on: dict of root, component, and optional labels and annotations. */}}
{{- define "zimcache.meta" -}}
labels:
  {{- include "zimcache.labels" (list .root .component) | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.global.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The name of an image: list of context and the image's values. */}}
{{- define "zimcache.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := $image.repository -}}
{{- with $root.Values.global.imageRegistry | default $image.registry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .) $name -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "zimcache.imagePullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where pods of a component run: its values. */}}
{{- define "zimcache.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Security of bundled parts and of the test, as the `restricted` standard wants it. */}}
{{- define "zimcache.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "zimcache.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Names of the secrets of bundled parts. */}}
{{- define "zimcache.redis.secretName" -}}
{{- .Values.redis.auth.existingSecret | default (include "zimcache.redis.name" .) -}}
{{- end -}}

{{- define "zimcache.s3.secretName" -}}
{{- .Values.s3.auth.existingSecret | default (include "zimcache.s3.name" .) -}}
{{- end -}}

{{/*
A value of a secret that was made before, else a new random one: list of context, name of the secret, key, length.
An upgrade must not change it, since those who use it are not restarted by Helm.
*/}}
{{- define "zimcache.generated" -}}
{{- $root := index . 0 -}}
{{- $found := lookup "v1" "Secret" $root.Release.Namespace (index . 1) | default dict -}}
{{- $data := get $found "data" | default dict -}}
{{- if hasKey $data (index . 2) -}}
{{- get $data (index . 2) | b64dec -}}
{{- else -}}
{{- randAlphaNum (index . 3 | int) -}}
{{- end -}}
{{- end -}}

{{/* Whether the cluster knows the objects of the Prometheus operator. */}}
{{- define "zimcache.hasPrometheus" -}}
{{- if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}true{{- end -}}
{{- end -}}

{{/* The Service of this release's gateways. */}}
{{- define "zimcache.gateway" -}}
{{- .Values.zimcache.name }}-gateway
{{- end -}}

{{/* Refuses values that contradict each other, each with a sentence that says what to write. */}}
{{- define "zimcache.validate" -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- fail "serviceMonitor.enabled and podMonitor.enabled would count everything twice: switch one of them off" -}}
{{- end -}}
{{- if and .Values.watchNamespaces .Values.zimcache.create (not (has .Release.Namespace .Values.watchNamespaces)) -}}
{{- fail (printf "nobody would look after ZimCache %s: add %s to watchNamespaces, or set zimcache.create to false" .Values.zimcache.name .Release.Namespace) -}}
{{- end -}}
{{- if not .Values.zimcache.create -}}
{{- range $part := list "redis" "s3" "ingress" "httproute" "grpcroute" -}}
{{- if (index $.Values $part).enabled -}}
{{- fail (printf "%s.enabled is for the ZimCache of this release: set zimcache.create to true, or %s.enabled to false" $part $part) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.s3.enabled (hasKey .Values.zimcache.spec "durableTier") -}}
{{- fail "s3.enabled and zimcache.spec.durableTier both name a bucket: leave one of them out" -}}
{{- end -}}
{{- if and .Values.redis.enabled (hasKey (.Values.zimcache.spec.rateLimits | default dict) "redis") -}}
{{- fail "redis.enabled and zimcache.spec.rateLimits.redis both name a Redis: leave one of them out" -}}
{{- end -}}
{{- range $route := list "httproute" "grpcroute" -}}
{{- if and (index $.Values $route).enabled (not (index $.Values $route).parentRefs) -}}
{{- fail (printf "%s.parentRefs is empty: name the Gateway it belongs to, as - name: GATEWAY" $route) -}}
{{- end -}}
{{- end -}}
{{- end -}}
