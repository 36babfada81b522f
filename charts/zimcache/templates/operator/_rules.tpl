{{/*
What the operator may do, in the namespaces that it watches. It writes by server-side apply, which needs create and
patch, no update; it deletes only what a spec no longer asks for.
*/}}
{{- define "zimcache.operator.rules" -}}
- apiGroups: [zimcache.dev]
  resources: [zimcaches]
  verbs: [get, list, watch, patch]
- apiGroups: [zimcache.dev]
  resources: [zimcaches/status]
  verbs: [get, patch]
# Owner references with blockOwnerDeletion.
- apiGroups: [zimcache.dev]
  resources: [zimcaches/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, secrets, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# The schedule of spec.gc.
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# The StatefulSet makes the volumes; the operator lets them grow, and removes them only when it was told to.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}

{{/* What belongs to no namespace. */}}
{{- define "zimcache.operator.clusterRules" -}}
# Zones, machines that are gone, and which volumes went with them.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [persistentvolumes]
  verbs: [get]
# Whether volumes may grow.
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs: [get]
# Its own definition.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [zimcaches.zimcache.dev]
  verbs: {{ ternary "[get, list, watch, create, patch]" "[get, list, watch]" .Values.crds.manage }}
{{- end -}}
