{{/* One step of the test: list of context, name and arguments of `zim`. */}}
{{- define "zimcache.test.container" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $test := $root.Values.zimcache.test -}}
- name: {{ $name }}
  image: {{ include "zimcache.image" (list $root $root.Values.image) }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    {{- toYaml (index . 2) | nindent 4 }}
  env:
    - name: ZIMCACHE_URL
      value: http://{{ include "zimcache.gateway" $root }}.{{ $root.Release.Namespace }}.svc:8080
    {{- with $test.existingSecret }}
    - name: ZIMCACHE_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ . }}
          key: {{ $test.key }}
    {{- end }}
  resources:
    {{- toYaml $test.resources | nindent 4 }}
  securityContext:
    {{- include "zimcache.securityContext" $root | nindent 4 }}
  {{- if eq $name "put" }}
  volumeMounts:
    - name: value
      mountPath: /test
      readOnly: true
  {{- end }}
{{- end -}}
